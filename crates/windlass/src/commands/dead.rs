//! `windlass dead`: the failed jobs of a queue.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};
use windlass_jobs::{JobId, State};

use super::{enqueue, report};
use crate::cli::{Dead, DeadVerb};
use crate::runtime::Stores;
use crate::settings::Settings;
use crate::system::{self, Filter};

pub(crate) async fn run(settings: &Settings, args: &Dead, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    match &args.verb {
        DeadVerb::List { queue, limit } => {
            let page = stores.broker.list(queue, State::Failure, 0, *limit).await?;
            let mut records = Vec::new();
            for ulid in &page.ids {
                records.extend(stores.broker.get(&JobId::new(*ulid, queue.clone())).await?);
            }
            if as_json {
                let dead: Vec<Value> = records.iter().map(report::record_json).collect();
                report::json_line(&json!({ "dead": dead, "more": page.next.is_some() }));
            } else {
                records.iter().for_each(report::print_record);
                if records.is_empty() {
                    report::line(format_args!("no failed jobs on {queue}"));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        DeadVerb::Replay(which) => many(settings, &stores, which, "windlass.replay", as_json).await,
        DeadVerb::Delete(which) => many(settings, &stores, which, "windlass.delete", as_json).await,
    }
}

/// Single ids at once; a filter as a job, which works in slices.
async fn many(
    settings: &Settings,
    stores: &Stores,
    which: &crate::cli::Which,
    kind: &str,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    if !which.ids.is_empty() {
        return by_id(stores, &which.ids, kind, as_json).await;
    }
    let filter =
        Filter { kind: which.kind.clone(), reason: which.reason, labels: which.labels.iter().cloned().collect() };
    let Some(queue) = &which.queue else { bail!("name job ids, or --queue with --all or a filter") };
    let is_any = filter.kind.is_none() && filter.reason.is_none() && filter.labels.is_empty();
    if is_any && !which.all {
        bail!("name a filter (--kind, --reason, --label), or --all for every failed job of {queue}");
    }
    let args = json!({ "queue": queue, "filter": filter });
    enqueue::submit_and_wait(settings, stores, kind, &args, &system::QUEUE.parse()?, as_json).await
}

async fn by_id(stores: &Stores, ids: &[JobId], kind: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut changed = 0;
    for id in ids {
        let answer = match kind {
            "windlass.replay" => stores.broker.replay(&id.queue, &[id.ulid]).await?,
            _ => stores.broker.delete(&id.queue, &[id.ulid]).await?,
        };
        let done = answer == [true];
        changed += usize::from(done);
        if !as_json {
            report::line(format_args!("{id}  {}", if done { "done" } else { "not in the dead set" }));
        }
    }
    if as_json {
        report::json_line(&json!({ "asked": ids.len(), "done": changed }));
    }
    Ok(if changed == ids.len() { ExitCode::SUCCESS } else { ExitCode::from(crate::telemetry::EXIT_JOB_FAILED) })
}
