//! `windlass queues`.

use std::process::ExitCode;

use serde_json::json;

use super::report;
use crate::runtime::Stores;
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let workers = stores.broker.workers().await?;
    let mut rows = Vec::new();
    for queue in stores.broker.queues().await? {
        let counts = stores.broker.counts(&queue).await?;
        rows.push((queue, counts));
    }
    if as_json {
        let queues: Vec<_> = rows.iter().map(|(queue, counts)| json!({ "queue": queue, "counts": counts })).collect();
        report::json_line(&json!({ "engine": stores.broker.engine(), "queues": queues, "workers": workers }));
        return Ok(ExitCode::SUCCESS);
    }
    report::line(format_args!("{} queue at {}", stores.broker.engine(), stores.place));
    if rows.is_empty() {
        report::line("no jobs yet: try `windlass demo` or `windlass enqueue probe.noop --wait`");
        return Ok(ExitCode::SUCCESS);
    }
    report::line(format_args!(
        "\n{:<16} {:>9} {:>9} {:>9} {:>9} {:>11} {:>9} {:>8}",
        "queue", "pending", "scheduled", "retrying", "running", "success", "failure", "workers"
    ));
    for (queue, c) in &rows {
        let serving = workers.iter().filter(|w| w.queues.contains(queue)).count();
        report::line(format_args!(
            "{:<16} {:>9} {:>9} {:>9} {:>9} {:>11} {:>9} {serving:>8}",
            queue.as_str(),
            c.pending,
            c.scheduled,
            c.retrying,
            c.running,
            c.success_total,
            c.failure_total
        ));
    }
    let stuck = rows.iter().find(|(queue, c)| c.pending > 0 && !workers.iter().any(|w| w.queues.contains(queue)));
    if let Some((queue, _)) = stuck {
        report::line(format_args!("\nno worker serves {queue}: start one with `windlass worker --queues {queue}`"));
    }
    Ok(ExitCode::SUCCESS)
}
