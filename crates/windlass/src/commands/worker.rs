//! `windlass worker`.

use std::process::ExitCode;

use serde_json::json;

use super::report;
use crate::cli::WorkerArgs;
use crate::runtime::{self, Signals, Stores};
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, args: &WorkerArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let registry = crate::kinds::registry(Some(&stores.broker));
    let queues = runtime::queues(&args.queues, settings, &registry)?;
    let mut signals = Signals::listen()?;
    let names: Vec<String> = queues.iter().map(ToString::to_string).collect();
    let mut worker = stores.worker(settings, registry, queues, args.slots)?;
    tracing::info!(worker = worker.name(), queues = names.join(","), store = stores.place, "worker started");
    if as_json {
        report::json_line(&json!({ "worker": worker.name(), "queues": names, "store": stores.place }));
    }
    runtime::work_until_signal(&mut worker, &mut signals, settings).await?;
    Ok(ExitCode::SUCCESS)
}
