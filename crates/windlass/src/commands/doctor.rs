//! `windlass doctor`: whether everything a worker needs is there and works.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use windlass_redis::Link;
use windlass_worker::{Isolation, Sandbox};

use super::report;
use crate::eviction::Eviction;
use crate::runtime::{self, Stores};
use crate::settings::Settings;
use crate::telemetry::EXIT_ERROR;

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Ok,
    /// It works, and could be better.
    Warn,
    /// Jobs cannot be kept or run.
    Fail,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at: a stable name, how it is, and what was found.
struct Finding(&'static str, Health, String);

/// Prints what was found. Code 1 when something is unusable.
pub(crate) async fn run(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = vec![Finding("version", Health::Ok, version())];
    match Stores::open(settings).await {
        Ok(stores) => findings.push(store(&stores).await),
        Err(e) => findings.push(Finding("store", Health::Fail, format!("{e:#}"))),
    }
    if let Some(options) = &settings.redis {
        match Link::new(options.clone()) {
            Ok(link) => findings.extend(redis(&link).await),
            Err(e) => findings.push(Finding("redis", Health::Fail, e.to_string())),
        }
    } else {
        findings.push(writable("data_dir", &settings.data_dir));
    }
    let isolation = runtime::isolation(settings);
    findings.push(writable("scratch", &isolation.scratch));
    let (sandbox, finding) = sandbox(&isolation).await;
    findings.push(finding);
    let usable = findings.iter().all(|Finding(_, health, _)| *health != Health::Fail);
    if as_json {
        report::json_line(&to_json(&findings, sandbox.as_ref(), usable));
    } else {
        for Finding(name, health, found) in &findings {
            report::line(format_args!("{:<5} {name:<16} {found}", health.word()));
        }
    }
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::from(EXIT_ERROR) })
}

fn to_json(findings: &[Finding], sandbox: Option<&Sandbox>, usable: bool) -> Value {
    let rows: Vec<Value> = findings
        .iter()
        .map(|Finding(name, health, found)| json!({ "name": name, "health": health.word(), "found": found }))
        .collect();
    json!({ "usable": usable, "findings": rows, "sandbox": sandbox })
}

fn version() -> String {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("windlass {} ({build})", env!("CARGO_PKG_VERSION"))
}

/// The queue answers a question.
async fn store(stores: &Stores) -> Finding {
    let engine = stores.broker.engine();
    match stores.broker.queues().await {
        Ok(queues) => {
            Finding("store", Health::Ok, format!("{engine} at {} answers, {} queues", stores.place, queues.len()))
        }
        Err(e) => {
            let chain = anyhow::Error::new(e);
            Finding("store", Health::Fail, format!("{engine} at {}: {chain:#}", stores.place))
        }
    }
}

/// Version and the setting without which a full Redis throws jobs away; or what keeps it from
/// answering, and what to do about that.
async fn redis(link: &Link) -> Vec<Finding> {
    let mut findings = Vec::new();
    match link.info("default").await {
        Ok(texts) => {
            let version = |text: &String| {
                text.lines().find_map(|line| Some(line.strip_prefix("redis_version:")?.trim().to_owned()))
            };
            let mut versions: Vec<String> = texts.iter().filter_map(version).collect();
            versions.dedup();
            findings.push(Finding("redis", Health::Ok, format!("version {}", versions.join(", "))));
            let eviction = texts.iter().map(|text| Eviction::read(text)).max().unwrap_or(Eviction::Untold);
            findings.push(match eviction.advice() {
                None => Finding("maxmemory_policy", Health::Ok, "noeviction".to_owned()),
                Some(advice) if matches!(eviction, Eviction::Any(_)) => {
                    Finding("maxmemory_policy", Health::Fail, advice)
                }
                Some(advice) => Finding("maxmemory_policy", Health::Warn, advice),
            });
        }
        Err(e) => {
            let advice = crate::redis_settings::advice(e.cause(), link.options().is_tls());
            let advice = advice.map_or(String::new(), |advice| format!("; {advice}"));
            findings.push(Finding("redis", Health::Fail, format!("{:#}{advice}", anyhow::Error::new(e))));
        }
    }
    findings
}

/// A file can be written there.
fn writable(name: &'static str, dir: &Path) -> Finding {
    let probe = dir.join(format!(".windlass-doctor-{}", std::process::id()));
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&probe, b"windlass"));
    let _ = std::fs::remove_file(&probe);
    match written {
        Ok(()) => Finding(name, Health::Ok, format!("{} can be written", dir.display())),
        Err(e) => Finding(name, Health::Fail, format!("{}: {e}", dir.display())),
    }
}

/// Starts a child and hears what confines it.
async fn sandbox(isolation: &Isolation) -> (Option<Sandbox>, Finding) {
    match isolation.try_out().await {
        Ok(sandbox) => {
            let missing = sandbox.missing();
            let finding = if missing.is_empty() {
                Finding("sandbox", Health::Ok, sandbox.to_string())
            } else {
                Finding("sandbox", Health::Warn, format!("{sandbox}; without {}", missing.join("; ")))
            };
            (Some(sandbox), finding)
        }
        Err(e) => {
            let program = isolation.program.display();
            (None, Finding("sandbox", Health::Fail, format!("no child can be started: {program}: {e}")))
        }
    }
}
