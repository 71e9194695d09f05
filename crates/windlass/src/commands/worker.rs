//! `windlass worker`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use windlass_worker::{Health, Housekeeper};

use super::{api, report};
use crate::cli::WorkerArgs;
use crate::runtime::{self, Signals, Stores};
use crate::settings::{Settings, WorkerListen};

pub(crate) async fn run(settings: &Settings, args: &WorkerArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    crate::eviction::guard(settings).await?;
    let stores = Stores::open(settings).await?;
    stores.market.check_mapping().await.context("[trading.db]")?;
    let registry = crate::kinds::for_worker(settings, &stores)?;
    let queues = runtime::queues(&args.queues, settings, &registry)?;
    let mut signals = Signals::listen()?;
    let listener = listen(settings.worker_listen).await?;
    let names: Vec<String> = queues.iter().map(ToString::to_string).collect();
    let _housekeeper = Housekeeper::start(stores.broker.clone(), stores.services.clone());
    stores.forward_spool();
    let watcher = stores.watch(&queues);
    let mut worker = stores.worker(settings, registry, queues, args.slots)?;
    let probes = listener
        .map(|listener| Probes::on(listener, worker.health(), stores.measured(watcher.is_some())))
        .transpose()?;
    let at = probes.as_ref().map(|probes| probes.address);
    tracing::info!(worker = worker.name(), queues = names.join(","), store = stores.place, "worker started");
    if as_json {
        let line = json!({ "worker": worker.name(), "queues": names, "store": stores.place, "probes": at });
        report::json_line(&line);
    }
    let worked = runtime::work_until_signal(&mut worker, &mut signals, settings).await;
    if let Some(probes) = probes {
        probes.stop().await;
    }
    if let Some(watcher) = watcher {
        watcher.stop().await;
    }
    worked?;
    Ok(ExitCode::SUCCESS)
}

async fn listen(setting: WorkerListen) -> anyhow::Result<Option<TcpListener>> {
    let (at, bound) = match setting {
        WorkerListen::Off => return Ok(None),
        WorkerListen::Near(at) => (at, api::bind_near(at).await),
        WorkerListen::At(at) => (at, TcpListener::bind(at).await),
    };
    bound.map(Some).with_context(|| format!("the worker's probes cannot listen on {at} (WINDLASS_WORKER_LISTEN)"))
}

/// The socket on which a worker says how it is.
struct Probes {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), windlass_api::Error>>,
}

impl Probes {
    fn on(listener: TcpListener, worker: Health, measured: windlass_api::Measured) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("the address of the worker's probes")?;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(windlass_api::serve_probes(listener, worker, measured, shutdown));
        Ok(Self { address, stop, serving })
    }

    /// Whatever became of the probes, the worker's own end is what counts.
    async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.serving.await;
    }
}
