//! `windlass workers`.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use windlass_jobs::command::WorkerInfo;

use super::report;
use crate::runtime::Stores;
use crate::settings::Settings;

/// How many running jobs of a worker are shown.
const SHOWN: usize = 5;

pub(crate) async fn run(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let workers = stores.broker.workers().await?;
    if as_json {
        report::json_line(&json!({ "engine": stores.broker.engine(), "workers": workers }));
        return Ok(ExitCode::SUCCESS);
    }
    if workers.is_empty() {
        report::line("no worker has been heard of in the last 15 s: start one with `windlass worker`");
        return Ok(ExitCode::SUCCESS);
    }
    report::line(format_args!(
        "{:<28} {:>8} {:>11} {:>9} {:<9} queues",
        "worker", "pid", "slots used", "canary", "state"
    ));
    for worker in &workers {
        show(worker, settings);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(worker: &WorkerInfo, settings: &Settings) {
    let age = worker.canary_age_ms.map(Duration::from_millis);
    let state = match age {
        _ if worker.draining => "draining",
        None => "starting",
        Some(age) if age > settings.health.ready_within => "cut off",
        Some(_) => "ready",
    };
    let queues: Vec<&str> = worker.queues.iter().map(windlass_jobs::Queue::as_str).collect();
    report::line(format_args!(
        "{:<28} {:>8} {:>11} {:>9} {state:<9} {}",
        worker.name,
        worker.pid,
        format!("{} of {}", worker.running, worker.slots),
        age.map_or_else(|| "none yet".to_owned(), report::span),
        queues.join(","),
    ));
    for job in worker.jobs.iter().take(SHOWN) {
        report::line(format_args!(
            "  {} {} for {}",
            job.id,
            job.kind,
            report::span(Duration::from_millis(job.running_ms))
        ));
    }
    let shown = worker.jobs.len().min(SHOWN);
    if worker.running > shown {
        report::line(format_args!("  and {} more", worker.running - shown));
    }
}
