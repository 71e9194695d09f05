//! `windlass bridge`: takes jobs from apalis-redis storages and Celery clients.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::net::TcpListener;

use super::report;
use crate::cli::BridgeArgs;
use crate::runtime::{Signals, Stores};
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, args: &BridgeArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    if args.refused {
        return refused(settings, args.limit, as_json).await;
    }
    crate::eviction::guard(settings).await?;
    let stores = Stores::open(settings).await?;
    let mut signals = Signals::listen()?;
    let listener = match settings.bridge.listen {
        Some(at) => Some(
            TcpListener::bind(at)
                .await
                .with_context(|| format!("the bridge's probes cannot listen on {at} (WINDLASS_BRIDGE_LISTEN)"))?,
        ),
        None => None,
    };
    let probes = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let Some(bridge) = settings.bridge.start(&stores)? else {
        bail!("nothing to take: set WINDLASS_APALIS_SOURCES or WINDLASS_CELERY_QUEUES (docs/bridges.md)")
    };
    let counters = bridge.counters();
    let serving = listener.map(|listener| {
        let measured = move || counters.metrics() + &crate::otlp::metrics();
        tokio::spawn(windlass_api::serve_plain_probes(listener, measured, std::future::pending()))
    });
    tracing::info!(store = stores.place, "bridge started");
    if as_json {
        report::json_line(&json!({ "bridge": "started", "store": stores.place, "probes": probes }));
    }
    let told = crate::systemd::tell(None);
    let signal = signals.next().await;
    tracing::info!(signal, "stopping: what is in hand is done");
    told.stopping();
    bridge.stop().await;
    if let Some(serving) = serving {
        serving.abort();
    }
    Ok(ExitCode::SUCCESS)
}

/// The jobs that were put aside, newest first.
async fn refused(settings: &Settings, limit: usize, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for source in settings.bridge.sources()? {
        let notes = source.refused(limit).await.with_context(|| source.name().to_owned())?;
        all.extend(notes.into_iter().map(|note| (source.name().to_owned(), note)));
    }
    if as_json {
        let notes: Vec<_> = all.iter().map(|(source, note)| json!({ "source": source, "job": note })).collect();
        report::json_line(&json!({ "refused": notes }));
    } else {
        for (source, note) in &all {
            report::line(format_args!("{} {source} {}: {}", note.at, note.id, note.reason));
        }
    }
    Ok(ExitCode::SUCCESS)
}
