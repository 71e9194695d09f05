//! `windlass doctor`: whether everything a worker needs is there and works, and what to do where not.

mod host;
mod production;
mod servers;
mod trips;

use std::process::ExitCode;

use serde_json::{Value, json};
use windlass_worker::Sandbox;

use super::report;
use crate::cli::Doctor;
use crate::runtime::{self, Stores};
use crate::settings::Settings;
use crate::telemetry::EXIT_ERROR;

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Ok,
    /// It works, and could be better.
    Warn,
    /// Jobs cannot be kept or run, or the installation is not fit for production.
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

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self(name, Health::Ok, found.into())
    }

    fn warn(name: &'static str, found: impl Into<String>) -> Self {
        Self(name, Health::Warn, found.into())
    }

    fn fail(name: &'static str, found: impl Into<String>) -> Self {
        Self(name, Health::Fail, found.into())
    }

    /// Something that did not work out, with what to do about it.
    fn error(name: &'static str, error: &anyhow::Error) -> Self {
        Self::fail(name, explain(error))
    }

    fn of(name: &'static str, result: anyhow::Result<String>) -> Self {
        match result {
            Ok(found) => Self::ok(name, found),
            Err(error) => Self::error(name, &error),
        }
    }
}

/// An error with all its causes, and what somebody can do about the one of Redis among them.
fn explain(error: &anyhow::Error) -> String {
    let cause = error.chain().find_map(|e| e.downcast_ref::<windlass_redis::Error>()).map(windlass_redis::Error::cause);
    let is_tls = error.to_string().contains("rediss") || error.chain().any(|e| e.to_string().contains("rediss"));
    match cause.and_then(|cause| crate::redis_settings::advice(cause, is_tls)) {
        Some(advice) => format!("{error:#}; {advice}"),
        None => format!("{error:#}"),
    }
}

/// Prints what was found. Code 1 when something is unusable or, for production, missing.
pub(crate) async fn run(settings: &Settings, args: &Doctor, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = vec![Finding::ok("version", version())];
    let mut stores = match Stores::open(settings).await {
        Ok(stores) => Some(stores),
        Err(e) => {
            findings.push(Finding::error("store", &e));
            None
        }
    };
    if let Some(open) = &stores {
        let found = trips::store(open).await;
        if found.1 == Health::Fail {
            stores = None;
        }
        findings.push(found);
    }
    let queue_server = servers::all(settings, &mut findings).await;
    findings.push(host::writable("data_dir", &settings.data_dir));
    findings.push(host::room("data_dir_room", &settings.data_dir));
    let isolation = runtime::isolation(settings);
    findings.push(host::writable("scratch", &isolation.scratch));
    findings.push(host::room("scratch_room", &isolation.scratch));
    let (sandbox, finding) = host::sandbox(&isolation).await;
    findings.push(finding);
    if let Some(stores) = &stores {
        trips::all(settings, stores, &mut findings).await;
    }
    if args.production {
        production::look(settings, args, stores.as_ref(), &queue_server, &mut findings).await;
    }
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
