//! `windlass up`: the API, a worker, a scheduler and, where it is set, a bridge in one process.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use windlass_bridge::Bridge;

use super::{api, report};
use crate::cli::Up;
use crate::duties::Scheduling;
use crate::runtime::{self, Signals, Stores};
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, args: &Up, as_json: bool) -> anyhow::Result<ExitCode> {
    crate::eviction::guard(settings).await?;
    let stores = Stores::open(settings).await?;
    stores.market.check_mapping().await.context("[trading.db]")?;
    let registry = crate::kinds::for_worker(settings, &stores)?;
    let queues = runtime::queues(&args.worker.queues, settings, &registry)?;
    let mut signals = Signals::listen()?;
    let listener = api::bind(args.api.listen.unwrap_or(settings.listen)).await?;
    let watcher = stores.watch(&queues);
    let mut worker = stores.worker(settings, registry, queues, args.worker.slots)?;
    let scheduling = Scheduling::start(settings, &stores).await?;
    let bridge = settings.bridge.start(&stores)?;
    let mut beside = api::Beside { worker: Some(worker.health()), scheduler: Some(scheduling.counters()), more: None };
    if let Some(counters) = bridge.as_ref().map(Bridge::counters) {
        beside.more = Some(Arc::new(move || counters.metrics()));
    }
    let mut server = api::Server::on(listener, settings, &stores, beside)?;
    server.first_key(&stores).await;
    tracing::info!(api = %server.address(), worker = worker.name(), store = stores.place, "up");
    if as_json {
        report::json_line(&json!({ "api": server.address(), "worker": worker.name(), "store": stores.place }));
    }
    let worked = tokio::select! {
        worked = runtime::work_until_signal(&mut worker, &mut signals, settings) => worked,
        error = server.ended() => return Err(error),
    };
    if let Some(bridge) = bridge {
        bridge.stop().await;
    }
    scheduling.stop().await;
    if let Some(watcher) = watcher {
        watcher.stop().await;
    }
    server.stop().await?;
    worked?;
    Ok(ExitCode::SUCCESS)
}
