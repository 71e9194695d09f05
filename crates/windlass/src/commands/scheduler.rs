//! `windlass scheduler`: one of any number of schedulers, of which one leads.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tokio::net::TcpListener;

use super::report;
use crate::duties::Scheduling;
use crate::runtime::{Signals, Stores};
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let stores = Stores::open(settings).await?;
    let mut signals = Signals::listen()?;
    let listener =
        match settings.scheduler_listen {
            Some(at) => {
                let bound = TcpListener::bind(at).await;
                Some(bound.with_context(|| {
                    format!("the scheduler's probes cannot listen on {at} (WINDLASS_SCHEDULER_LISTEN)")
                })?)
            }
            None => None,
        };
    let probes = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let scheduling = Scheduling::start(settings, &stores).await?;
    let copying = stores
        .snapshot
        .as_ref()
        .map(|file| windlass_api::keep_copy(Arc::clone(&stores.records), &file.with_extension("api.json")));
    let counters = scheduling.counters();
    let serving = listener.map(|listener| {
        let measured = move || counters.metrics() + &crate::otlp::metrics();
        tokio::spawn(windlass_api::serve_plain_probes(listener, measured, std::future::pending()))
    });
    tracing::info!(store = stores.place, "scheduler started");
    if as_json {
        report::json_line(&json!({ "scheduler": "started", "store": stores.place, "probes": probes }));
    }
    let signal = signals.next().await;
    tracing::info!(signal, "stopping: another scheduler takes over");
    scheduling.stop().await;
    if let Some(copying) = copying {
        copying.abort();
    }
    if let Some(serving) = serving {
        serving.abort();
    }
    Ok(ExitCode::SUCCESS)
}
