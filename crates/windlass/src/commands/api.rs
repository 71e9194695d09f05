//! `windlass api`, and the API inside `up` and `demo`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use windlass_api::keys::Book;
use windlass_api::{Anonymous, Api, ApiOptions, MoreMetrics, Ring};
use windlass_redis::Link;
use windlass_scheduler::{Counters, keep_copy};
use windlass_store::Caching;
use windlass_worker::Health;

use super::report;
use crate::cli::ApiArgs;
use crate::runtime::{Signals, Stores};
use crate::settings::Settings;

/// What runs in the process of an API.
#[derive(Default)]
pub(crate) struct Beside {
    pub(crate) worker: Option<Health>,
    pub(crate) scheduler: Option<Arc<Counters>>,
    /// What else is measured.
    pub(crate) more: Option<MoreMetrics>,
}

/// The API of this process, until it is stopped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), windlass_api::Error>>,
    /// Somebody may do everything without a kept key.
    is_open: bool,
}

impl Server {
    /// Serves on a socket, for what runs in this process beside it, too.
    pub(crate) fn on(
        listener: TcpListener,
        settings: &Settings,
        stores: &Stores,
        beside: Beside,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        stores.look_after_images();
        let options = settings.api.options(address, stores.embedded);
        let is_open = options.auth.anonymous == Anonymous::Everything || !options.auth.fixed.is_empty();
        let copy = stores.snapshot.as_ref().map(|file| file.with_extension("api.json"));
        let ring = Arc::new(Ring::new(Arc::clone(&stores.records), copy.as_deref()));
        stores.forward_spool();
        let api = Api {
            ring,
            broker: stores.broker.clone(),
            services: stores.services.clone(),
            caching: caching(settings)?,
            market: stores.market.clone(),
            registry: crate::kinds::registry(),
            worker: beside.worker,
            records: Arc::clone(&stores.records),
            scheduler: beside.scheduler,
            claims: Arc::clone(&stores.claims),
            spool: stores.spool.clone(),
            redis: stores.link.clone(),
            log: crate::telemetry::filter(),
            more_metrics: Some(Arc::new(move || {
                let more = beside.more.as_ref().map(|more| more());
                crate::otlp::metrics() + &more.unwrap_or_default()
            })),
            local: (!stores.embedded).then(|| crate::local::maker(settings)),
            options: ApiOptions {
                old_images: settings.images.old_folder(),
                connections: options.connections.min(crate::descriptors::connections()),
                settings: settings.in_force.clone(),
                ..options
            },
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(windlass_api::serve(listener, api, shutdown));
        Ok(Self { address, stop, serving, is_open })
    }

    /// Makes the key that may do everything, once in an installation, and says it; later, if the store
    /// does not answer now.
    pub(crate) async fn first_key(&self, stores: &Stores) {
        if self.is_open {
            return;
        }
        let book = Book::new(Arc::clone(&stores.records));
        if let Ok(Ok(made)) = tokio::time::timeout(FIRST_KEY_WITHIN, book.create_first()).await {
            return say(made);
        }
        tokio::spawn(async move {
            loop {
                match book.create_first().await {
                    Ok(made) => return say(made),
                    Err(error) => tracing::debug!(%error, "the first API key is made when the store answers"),
                }
                tokio::time::sleep(FIRST_KEY_WITHIN).await;
            }
        });
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it ends by itself, which it never should.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.serving).await {
            Ok(Err(e)) => anyhow::Error::new(e).context("the API"),
            other => anyhow::anyhow!("the API ended unasked: {other:?}"),
        }
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        self.serving.await?.context("the API")
    }
}

/// The API's socket.
pub(crate) async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| format!("the API cannot listen on {listen}"))
}

/// A socket there, or on a free port when that one is taken.
pub(crate) async fn bind_near(listen: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(listen).await {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => TcpListener::bind((listen.ip(), 0)).await,
        other => other,
    }
}

/// The cache service of this process: on Redis where one is set, else in its own memory.
pub(crate) fn caching(settings: &Settings) -> anyhow::Result<Caching> {
    let link = settings.cache_redis.clone().map(Link::new).transpose()?;
    Ok(Caching::new(link, &settings.caching))
}

/// How long a start waits for the first key.
const FIRST_KEY_WITHIN: Duration = Duration::from_secs(2);

fn say(made: Option<String>) {
    if let Some(key) = made {
        report::notice(format_args!(
            "API key that may do everything, shown this once: {key}\nOthers: windlass keys create; a lost one: windlass keys revoke ID, then create."
        ));
    }
}

pub(crate) async fn run(settings: &Settings, args: &ApiArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    crate::eviction::guard(settings).await?;
    let stores = Stores::open(settings).await?;
    stores.market.check_mapping().await.context("[trading.db]")?;
    let mut signals = Signals::listen()?;
    let listener = bind(args.listen.unwrap_or(settings.listen)).await?;
    let mut server = Server::on(listener, settings, &stores, Beside::default())?;
    server.first_key(&stores).await;
    let copying = stores.snapshot.as_ref().map(|file| keep_copy(Arc::clone(&stores.records), file));
    tracing::info!(api = %server.address(), store = stores.place, "API started");
    if as_json {
        report::json_line(&json!({ "api": server.address(), "store": stores.place }));
    }
    let told = crate::systemd::tell(None);
    tokio::select! {
        error = server.ended() => return Err(error),
        signal = signals.next() => tracing::info!(signal, "stopping: open requests are answered"),
    }
    told.stopping();
    if let Some(copying) = copying {
        copying.abort();
    }
    server.stop().await?;
    Ok(ExitCode::SUCCESS)
}
