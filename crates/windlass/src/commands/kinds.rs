//! `windlass kinds`.

use std::process::ExitCode;

use serde_json::json;
use windlass_worker::Executor;

use super::report;

pub(crate) fn run(as_json: bool) -> ExitCode {
    let registry = crate::kinds::registry(None);
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
