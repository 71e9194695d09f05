//! The subcommands, one module each.

mod api;
mod bench;
mod bench_market;
mod bench_service;
mod bridge;
mod cache;
mod control;
mod dead;
mod demo;
mod doctor;
mod enqueue;
mod images;
mod keys;
mod kinds;
pub(crate) mod market;
mod pdf;
mod queues;
mod records;
pub(crate) mod report;
mod schedule;
mod scheduler;
mod task;
mod tasks;
mod top;
mod up;
mod worker;
mod workers;

use std::process::ExitCode;

use crate::cli::{BenchWhat, Cli, Command};
use crate::settings::Settings;
use crate::telemetry;

/// Does what was asked; the exit code of the process.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut settings = Settings::read(cli.config.as_deref())?;
    if let Some(dir) = cli.data_dir {
        settings.data_dir = dir;
    }
    let quiet = !matches!(
        cli.command,
        Command::Up(_) | Command::Worker(_) | Command::Api(_) | Command::Scheduler | Command::Bridge(_)
    );
    if quiet && settings.log == "info" {
        // A command that answers and ends speaks only of what goes wrong.
        "warn".clone_into(&mut settings.log);
    }
    if matches!(cli.command, Command::Top(_)) {
        // The screen says what goes wrong; lines would be drawn across it.
        "off".clone_into(&mut settings.log);
    }
    telemetry::start(&settings)?;
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    crate::panic::install();
    if !quiet {
        telemetry::reread_on_hangup(cli.config.clone())?;
    }
    if !quiet || matches!(cli.command, Command::Enqueue(_)) {
        crate::otlp::start(&settings.otlp)?;
    }
    let json = cli.json;
    match cli.command {
        Command::Demo(args) => demo::run(&settings, &args, json).await,
        Command::Up(args) => up::run(&settings, &args, json).await,
        Command::Worker(args) => worker::run(&settings, &args, json).await,
        Command::Api(args) => api::run(&settings, &args, json).await,
        Command::Scheduler => scheduler::run(&settings, json).await,
        Command::Bridge(args) => bridge::run(&settings, &args, json).await,
        Command::Schedule(args) => schedule::run(&settings, args.verb, json).await,
        Command::Enqueue(args) => enqueue::run(&settings, *args, json).await,
        Command::Task(args) => task::run(&settings, &args, json).await,
        Command::Cancel { id, tree } => control::cancel(&settings, &id, tree, json).await,
        Command::Pause { queue } => control::pause(&settings, &queue, true, json).await,
        Command::Resume { queue } => control::pause(&settings, &queue, false, json).await,
        Command::Limit { queue, limits: Some(limits), .. } => {
            control::set_limits(&settings, &queue, &limits, json).await
        }
        Command::Limit { queue, max_waiting, .. } => control::limit(&settings, &queue, max_waiting, json).await,
        Command::Tasks(args) => tasks::run(&settings, &args, json).await,
        Command::Dead(args) => dead::run(&settings, &args, json).await,
        Command::Cache(args) => cache::run(&settings, args.verb, json).await,
        Command::Keys(args) => keys::run(&settings, args.verb, json).await,
        Command::Audit(args) => keys::audit(&settings, &args, json).await,
        Command::Records(args) => records::run(&settings, args.verb, json).await,
        Command::Pdf(args) => pdf::run(&settings, *args, json).await,
        Command::Images(args) => images::run(&settings, args.verb, json).await,
        Command::Top(args) => top::run(&settings, &args, json).await,
        Command::Queues => queues::run(&settings, json).await,
        Command::Workers => workers::run(&settings, json).await,
        Command::Doctor(args) => Box::pin(doctor::run(&settings, &args, json)).await,
        Command::Kinds { published: false } => Ok(kinds::run(json)),
        Command::Kinds { published: true } => kinds::published(&settings, json).await,
        Command::Market(args) => market::run(&settings, args, json).await,
        Command::Bench(args) => match args.what {
            BenchWhat::Queue(args) => bench::run(&settings, &args, json).await,
            BenchWhat::Api(args) => bench_service::api(&settings, &args, json).await,
            BenchWhat::Market(args) => bench_market::run(&settings, &args, json).await,
            BenchWhat::Cache(args) => bench_service::cache(&settings, &args, json).await,
        },
    }
}
