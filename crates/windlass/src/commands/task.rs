//! `windlass task ID`.

use std::process::ExitCode;

use anyhow::Context as _;
use windlass_jobs::{JobRecord, State};

use super::report;
use crate::cli::Task;
use crate::runtime::Stores;
use crate::settings::Settings;
use crate::telemetry::EXIT_JOB_FAILED;

pub(crate) async fn run(settings: &Settings, args: &Task, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let record = if args.follow {
        let mut shown = Shown::default();
        report::follow(stores.broker.as_ref(), &args.id, |record| shown.show(record, as_json)).await?
    } else {
        let found = stores.broker.get(&args.id).await?;
        found.with_context(|| format!("job {} is not known at {}", args.id, stores.place))?
    };
    finish(&stores, &record, args.out.as_deref(), as_json).await
}

/// Prints a job's end, saves its files if asked to, and turns its state into an exit code.
pub(crate) async fn finish(
    stores: &Stores,
    record: &JobRecord,
    out: Option<&std::path::Path>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let files = match out {
        Some(dir) => report::save_files(record, &stores.services, dir).await?,
        None => Vec::new(),
    };
    if as_json {
        let mut json = report::record_json(record);
        if out.is_some() {
            json["files"] = files.iter().map(|f| f.display().to_string()).collect();
        }
        report::json_line(&json);
    } else {
        report::print_record(record);
        for file in &files {
            report::line(format_args!("  written   {}", file.display()));
        }
    }
    let failed = matches!(record.state, State::Failure | State::Cancelled);
    Ok(if failed { ExitCode::from(EXIT_JOB_FAILED) } else { ExitCode::SUCCESS })
}

/// Prints each change of a followed job once, as a line.
#[derive(Default)]
pub(crate) struct Shown(String);

impl Shown {
    pub(crate) fn show(&mut self, record: &JobRecord, as_json: bool) {
        let progress = record.progress.as_ref().map(|p| format!("  {:>5.1} %  {}", p.percent, p.message));
        let text = format!("{}{}", record.state, progress.filter(|_| !record.state.is_terminal()).unwrap_or_default());
        if !as_json && text != self.0 {
            report::line(format_args!("  {text}"));
            self.0 = text;
        }
    }
}
