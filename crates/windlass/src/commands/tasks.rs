//! `windlass tasks`: the jobs of a queue in a state.

use std::process::ExitCode;

use serde_json::{Value, json};
use windlass_jobs::command::{Filter, SEARCH_WINDOW};
use windlass_jobs::{JobId, JobRecord};

use super::report;
use crate::cli::Tasks;
use crate::runtime::Stores;
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, args: &Tasks, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let filter = Filter {
        state: args.state,
        parked: args.parked,
        kind: args.kind.clone(),
        labels: args.labels.iter().cloned().collect(),
    };
    let found = stores.broker.search(&args.queue, &filter, args.cursor, usize::from(args.limit)).await?;
    let mut records = Vec::with_capacity(found.ids.len());
    for ulid in found.ids {
        records.extend(stores.broker.get(&JobId::new(ulid, args.queue.clone())).await?);
    }
    if as_json {
        let tasks: Vec<Value> = records.iter().map(report::record_json).collect();
        report::json_line(&json!({ "tasks": tasks, "next": found.next, "beyond": found.beyond }));
        return Ok(ExitCode::SUCCESS);
    }
    let state = if args.parked { "parked".to_owned() } else { args.state.to_string() };
    if records.is_empty() {
        report::line(format_args!("no {state} jobs like that on {}", args.queue));
    } else {
        let width = records.iter().map(|record| record.kind.len()).max().unwrap_or(0).max(4);
        report::line(format_args!("{:<id$}  {:<width$}  since", "task", "kind", id = 27 + args.queue.as_str().len()));
        for record in &records {
            report::line(format_args!("{}  {:<width$}  {}", record.id, record.kind, facts(record)));
        }
    }
    if let Some(next) = found.next {
        report::line(format_args!("\nmore: --cursor {next}"));
    }
    if found.beyond {
        report::line(format_args!("\nonly the first {SEARCH_WINDOW} {state} jobs were searched; there are more"));
    }
    Ok(ExitCode::SUCCESS)
}

/// When it came to where it stands, and what is to be known of it there.
fn facts(record: &JobRecord) -> String {
    let since =
        record.finished_at.or(record.started_at.filter(|_| !record.state.is_terminal())).unwrap_or(record.created_at);
    let mut text = since.to_string();
    if let Some(at) = record.run_at {
        text += &format!("  due {at}");
    }
    if let Some(reason) = record.reason {
        text += &format!("  {reason}");
    }
    if let Some(progress) = record.progress.as_ref().filter(|_| !record.state.is_terminal()) {
        text += &format!("  {:.0} % {}", progress.percent, progress.message);
    }
    if let Some(error) = &record.error {
        text += &format!("  {error}");
    }
    for (name, value) in &record.options.labels {
        text += &format!("  {name}={value}");
    }
    text
}
