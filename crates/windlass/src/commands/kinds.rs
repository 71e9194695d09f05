//! `windlass kinds`.

use std::process::ExitCode;

use serde_json::json;
use windlass_worker::Executor;

use super::report;
use crate::runtime::Stores;
use crate::settings::Settings;

pub(crate) fn run(as_json: bool) -> ExitCode {
    let registry = crate::kinds::registry();
    let isolated = |name: &str| registry.executor(name) == Some(Executor::Isolated);
    if as_json {
        let kinds: Vec<_> = registry
            .specs()
            .map(|spec| {
                json!({
                    "kind": spec.name, "version": spec.version, "queue": spec.queue, "isolated": isolated(spec.name),
                    "max_attempts": spec.max_attempts, "timeout_ms": spec.timeout.as_millis(), "about": spec.about,
                })
            })
            .collect();
        report::json_line(&json!({ "kinds": kinds }));
        return ExitCode::SUCCESS;
    }
    for spec in registry.specs() {
        let place = if isolated(spec.name) { "child process" } else { "in the worker" };
        report::line(format_args!("{:<16} queue {:<8} {place:<14} {}", spec.name, spec.queue, spec.about));
    }
    ExitCode::SUCCESS
}

/// What workers have published, those of other programs too.
pub(crate) async fn published(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let kinds = stores.broker.kinds().await?;
    if as_json {
        report::json_line(&json!({ "kinds": kinds }));
        return Ok(ExitCode::SUCCESS);
    }
    let workers = stores.broker.workers().await?;
    if kinds.is_empty() {
        report::line("no worker has published a kind yet: start one with `windlass worker`");
    }
    for kind in &kinds {
        let knows = workers.iter().filter(|worker| worker.kinds.contains(&kind.name)).count();
        let schema = if kind.schema.is_some() { "schema" } else { "-" };
        report::line(format_args!(
            "{:<20} v{:<3} queue {:<10} workers {knows:<3} {schema:<7} {}",
            kind.name, kind.version, kind.queue, kind.about
        ));
    }
    Ok(ExitCode::SUCCESS)
}
