//! `windlass cancel`, `pause`, `resume` and `limit`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;
use windlass_jobs::command::Cancel;
use windlass_jobs::{JobId, Limits, Queue};

use super::report;
use crate::runtime::Stores;
use crate::settings::Settings;
use crate::telemetry::EXIT_JOB_FAILED;

pub(crate) async fn cancel(settings: &Settings, id: &JobId, tree: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    if tree {
        return cancel_tree(&stores, id, as_json).await;
    }
    let (word, code) = match stores.broker.cancel(id).await? {
        Cancel::Done => ("cancelled".to_owned(), ExitCode::SUCCESS),
        Cancel::Requested => ("running: its worker is told to stop".to_owned(), ExitCode::SUCCESS),
        Cancel::Ended(state) => (format!("too late: {state}"), ExitCode::from(EXIT_JOB_FAILED)),
        Cancel::Unknown => bail!("job {id} is not known at {}", stores.place),
    };
    if as_json {
        report::json_line(&json!({ "task_id": id, "answer": word }));
    } else {
        report::line(format_args!("{id}  {word}"));
    }
    Ok(code)
}

/// A line per job, the named one first.
async fn cancel_tree(stores: &Stores, id: &JobId, as_json: bool) -> anyhow::Result<ExitCode> {
    let jobs = windlass_broker::flow::cancel_tree(stores.broker.as_ref(), id, |_| true).await?;
    if jobs.is_empty() {
        bail!("job {id} is not known at {}", stores.place);
    }
    for (id, cancel) in jobs {
        let word = match cancel {
            Cancel::Done => "cancelled".to_owned(),
            Cancel::Requested => "running: its worker is told to stop".to_owned(),
            Cancel::Ended(state) => format!("too late: {state}"),
            Cancel::Unknown => "not known any more".to_owned(),
        };
        if as_json {
            report::json_line(&json!({ "task_id": id, "answer": word }));
        } else {
            report::line(format_args!("{id}  {word}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn pause(settings: &Settings, queue: &Queue, paused: bool, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    stores.broker.pause(queue, paused).await?;
    if as_json {
        report::json_line(&json!({ "queue": queue, "paused": paused }));
    } else {
        let word = if paused { "paused: nothing is claimed until `windlass resume`" } else { "resumed" };
        report::line(format_args!("{queue}  {word}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn limit(
    settings: &Settings,
    queue: &Queue,
    max: Option<u64>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    stores.broker.set_max_waiting(queue, max).await?;
    if as_json {
        report::json_line(&json!({ "queue": queue, "max_waiting": max }));
    } else {
        let word = max.map_or("any number of jobs may wait".to_owned(), |max| format!("at most {max} jobs may wait"));
        report::line(format_args!("{queue}  {word}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn set_limits(
    settings: &Settings,
    queue: &Queue,
    limits: &str,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let limits: Limits = serde_json::from_str(limits).context("the limits are not what they may be")?;
    if let Some(wrong) = limits.check().first() {
        bail!("limits {}: {}", wrong.path, wrong.message);
    }
    let stores = Stores::open(settings).await?;
    stores.broker.set_limits(queue, &limits).await?;
    if as_json {
        report::json_line(&json!({ "queue": queue, "limits": limits }));
    } else {
        report::line(format_args!("{queue}  {}", serde_json::to_string(&limits)?));
    }
    Ok(ExitCode::SUCCESS)
}
