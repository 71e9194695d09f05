//! `windlass schedule`: list, show, set, change, pause, resume, run and remove schedules.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};
use windlass_jobs::Timestamp;
use windlass_scheduler::{Book, Definition, Entry, Error, Missed, View};

use super::report;
use crate::cli::{ScheduleAdd, ScheduleVerb};
use crate::runtime::Stores;
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, verb: ScheduleVerb, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let book = crate::duties::book(&stores);
    match verb {
        ScheduleVerb::List => list(&book, as_json).await?,
        ScheduleVerb::Show { name } => show(&book.get(&name).await.map_err(said)?, as_json),
        ScheduleVerb::Next { name, plan, zone, count } => {
            let firings = match (name, plan) {
                (Some(name), None) => book.next(&name, count).await.map_err(said)?,
                (None, Some(plan)) => {
                    let definition = Definition { zone, ..Definition::new("preview", &plan, "windlass.canary") };
                    book.preview(&definition, count).await.map_err(said)?
                }
                _ => anyhow::bail!("name a schedule, or a plan with --plan"),
            };
            next(&firings, as_json);
        }
        ScheduleVerb::Add(args) => add(&book, *args, as_json).await?,
        ScheduleVerb::Pause { name } => {
            told(
                &book.pause(&name, true).await.map_err(said)?,
                "paused: does not fire until `windlass schedule resume`",
                as_json,
            );
        }
        ScheduleVerb::Resume { name } => {
            told(&book.pause(&name, false).await.map_err(said)?, "resumed from now on", as_json);
        }
        ScheduleVerb::Run { name } => {
            let id = book.run(&name).await.map_err(said)?;
            if as_json {
                report::json_line(&json!({ "task_id": id, "name": name }));
            } else {
                report::line(format_args!("{id}"));
                report::line(format_args!("see it with `windlass task {id} --follow`"));
            }
        }
        ScheduleVerb::Remove { name } => {
            book.remove(&name).await.map_err(said)?;
            if as_json {
                report::json_line(&json!({ "name": name, "removed": true }));
            } else {
                report::line(format_args!("{name}  removed; jobs it has enqueued stay"));
            }
        }
        ScheduleVerb::History { name, limit } => {
            history(&name, &book.history(&name, 0, limit).await.map_err(said)?, as_json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An error of the book, with what to do about it.
fn said(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::NotFound(_) => "; `windlass schedule list` shows them",
        Error::Exists(_) => "; `windlass schedule add --replace` changes it",
        _ => "",
    };
    match error {
        Error::NotFound(_) | Error::Exists(_) | Error::Refused(_) => anyhow::anyhow!("{error}{hint}"),
        other => other.into(),
    }
}

async fn list(book: &Book, as_json: bool) -> anyhow::Result<()> {
    let all = book.all().await.map_err(said)?;
    if as_json {
        let schedules: Vec<Value> = all.iter().map(View::to_json).collect();
        report::json_line(&json!({ "schedules": schedules }));
        return Ok(());
    }
    if all.is_empty() {
        report::line("no schedules yet: `windlass schedule add --help`, or [[schedule]] in windlass.toml;");
        report::line("`windlass up` and `windlass scheduler` bring the built-in ones");
        return Ok(());
    }
    let width = |text: fn(&View) -> &str| all.iter().map(|view| text(view).len()).max().unwrap_or(0).max(8);
    let (name, plan) = (width(|view| &view.kept.definition.name), width(|view| &view.kept.definition.plan));
    report::line(format_args!(
        "{:<name$}  {:<plan$}  {:<20}  {:<8}  {:>8} {:>8} {:>8}",
        "schedule", "plan", "next (UTC)", "status", "fired", "skipped", "missed"
    ));
    for view in &all {
        let definition = &view.kept.definition;
        let next = view.next.map_or_else(|| "-".to_owned(), |(tick, _)| seconds(tick));
        let status = if view.overdue.is_some() { "OVERDUE" } else { view.status() };
        let state = &view.state;
        report::line(format_args!(
            "{:<name$}  {:<plan$}  {next:<20}  {status:<8}  {:>8} {:>8} {:>8}",
            definition.name, definition.plan, state.fired_total, state.skipped_total, state.missed_total
        ));
    }
    if all.iter().any(|view| view.overdue.is_some()) {
        report::line("\noverdue: is a scheduler up? `windlass scheduler`, or `windlass up`");
    }
    Ok(())
}

/// An instant without its milliseconds, which are zero.
fn seconds(at: Timestamp) -> String {
    at.to_string().replace(".000Z", "Z")
}

fn show(view: &View, as_json: bool) {
    if as_json {
        report::json_line(&view.to_json());
        return;
    }
    let definition = &view.kept.definition;
    let line = |name: &str, value: &str| report::line(format_args!("  {name:<9} {value}"));
    report::line(format_args!("{}  {}  {}", definition.name, definition.plan, view.status()));
    line("zone", &definition.zone);
    line("kind", &definition.kind);
    line("args", &definition.args.to_string());
    line("queue", view.kept.queue.as_str());
    let word = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    line("missed", &word(serde_json::to_value(definition.missed).unwrap_or_default()));
    line("overlap", &word(serde_json::to_value(definition.overlap).unwrap_or_default()));
    line("from", &word(serde_json::to_value(view.kept.origin).unwrap_or_default()));
    if let Some((tick, _)) = view.next {
        line("next", &seconds(tick));
    }
    if let Some(tick) = view.overdue {
        line("OVERDUE", &format!("since {}: is a scheduler up?", seconds(tick)));
    }
    let state = &view.state;
    if let Some(last) = &state.last {
        line("last", &format!("{} as {}", last.fired_at, last.job));
    }
    line("fired", &format!("{}, skipped {}, missed {}", state.fired_total, state.skipped_total, state.missed_total));
}

fn next(firings: &[(Timestamp, Timestamp)], as_json: bool) {
    if as_json {
        let next: Vec<Value> =
            firings.iter().map(|(tick, due)| json!({ "planned_at": tick, "fires_at": due })).collect();
        report::json_line(&json!({ "next": next }));
        return;
    }
    for (tick, due) in firings {
        let late = due.since(*tick);
        let jitter = if late.is_zero() { String::new() } else { format!("  + {} jitter", report::span(late)) };
        report::line(format_args!("{}{jitter}", seconds(*tick)));
    }
    if firings.is_empty() {
        report::line("it does not fire any more");
    }
}

fn told(view: &View, word: &str, as_json: bool) {
    if as_json {
        report::json_line(&view.to_json());
    } else {
        report::line(format_args!("{}  {word}", view.kept.definition.name));
    }
}

fn history(name: &str, entries: &[Entry], as_json: bool) {
    if as_json {
        let history: Vec<Value> = entries.iter().map(Entry::to_json).collect();
        report::json_line(&json!({ "name": name, "history": history }));
        return;
    }
    if entries.is_empty() {
        report::line(format_args!("{name} has not come due yet"));
    }
    for entry in entries {
        let (planned, late) = (Timestamp(entry.planned_ms), entry.actual_ms - entry.planned_ms);
        let more = match (&entry.range, &entry.job, &entry.message) {
            (Some((until, count)), ..) => format!("{count} until {}", seconds(Timestamp(*until))),
            (_, _, Some(message)) => message.clone(),
            (_, Some(job), _) => format!("{late} ms late  {job}"),
            _ => String::new(),
        };
        report::line(format_args!("{}  {}  {more}", seconds(planned), entry.what.as_str()));
    }
}

async fn add(book: &Book, args: ScheduleAdd, as_json: bool) -> anyhow::Result<()> {
    let replace = args.replace;
    let definition = read(args)?;
    let known = book.get(&definition.name).await;
    let view = match known {
        Ok(_) if replace => book.change(definition).await,
        _ => book.create(definition).await,
    };
    let view = view.map_err(said)?;
    if as_json {
        report::json_line(&view.to_json());
    } else {
        show(&view, false);
    }
    Ok(())
}

fn read(args: ScheduleAdd) -> anyhow::Result<Definition> {
    let text = match &args.args {
        None => None,
        Some(path) if path.as_os_str() == "-" => {
            Some(std::io::read_to_string(std::io::stdin()).context("args on standard input")?)
        }
        Some(path) => Some(std::fs::read_to_string(path).with_context(|| format!("args file {}", path.display()))?),
    };
    let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let new = Definition::new(&args.name, &args.plan, &args.kind);
    Ok(Definition {
        zone: args.zone,
        clock_change: args.clock_change.into(),
        args: text.map_or(Ok(new.args.clone()), |text| serde_json::from_str(&text)).context("the args are not JSON")?,
        queue: args.queue,
        priority: args.priority.into(),
        max_attempts: args.max_attempts,
        timeout_ms: args.timeout.map(ms),
        expires_in_ms: args.expires.map(ms),
        labels: args.labels.into_iter().collect(),
        jitter_ms: args.jitter.map_or(0, ms),
        starts_at: args.starts_at,
        ends_at: args.ends_at,
        missed: match args.missed {
            crate::cli::MissedArg::Skip => Missed::Skip,
            crate::cli::MissedArg::Latest => Missed::Latest,
            crate::cli::MissedArg::All => Missed::All { max: args.missed_max, window_ms: ms(args.missed_window) },
        },
        grace_ms: args.grace.map_or(new.grace_ms, ms),
        overlap: args.overlap.into(),
        ..new
    })
}
