//! `windlass api`, and the API inside `up` and `demo`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use windlass_api::{Api, ApiOptions, Auth, KeyHash, generate_key, hash_key};
use windlass_redis::Link;
use windlass_scheduler::{Counters, keep_copy};
use windlass_store::Caching;
use windlass_worker::Health;

use super::report;
use crate::cli::ApiArgs;
use crate::runtime::{Signals, Stores};
use crate::settings::Settings;

/// The API of this process, until it is stopped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), windlass_api::Error>>,
}

impl Server {
    /// Serves on a socket, for the worker of this process too, if there is one.
    pub(crate) fn on(
        listener: TcpListener,
        settings: &Settings,
        stores: &Stores,
        worker: Option<Health>,
        scheduler: Option<Arc<Counters>>,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        stores.look_after_images();
        let api = Api {
            broker: stores.broker.clone(),
            services: stores.services.clone(),
            caching: caching(settings)?,
            registry: crate::kinds::registry(),
            worker,
            records: Arc::clone(&stores.records),
            scheduler,
            options: ApiOptions {
                auth: auth(settings, address)?,
                old_images: settings.images.old_folder(),
                ..ApiOptions::default()
            },
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(windlass_api::serve(listener, api, shutdown));
        Ok(Self { address, stop, serving })
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
fn caching(settings: &Settings) -> anyhow::Result<Caching> {
    let link = settings.cache_redis.clone().map(Link::new).transpose()?;
    Ok(Caching::new(link, &settings.caching))
}

/// On loopback no key is needed unless keys are set; anywhere else one always is.
fn auth(settings: &Settings, address: SocketAddr) -> anyhow::Result<Auth> {
    if !settings.api_keys.is_empty() {
        return Ok(Auth::Keys(settings.api_keys.iter().map(|key| hash_key(&key.0)).collect()));
    }
    if address.ip().is_loopback() {
        return Ok(Auth::LoopbackOpen);
    }
    let file = settings.data_dir.join("api-key.sha256");
    let hash = match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} holds no key's hash", file.display()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => make_key(&file)?,
        Err(e) => return Err(e).with_context(|| format!("file {}", file.display())),
    };
    Ok(Auth::Keys(vec![hash]))
}

/// Makes a key, says it once, and keeps its hash.
fn make_key(file: &Path) -> anyhow::Result<KeyHash> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let key = generate_key();
    let hash = hash_key(&key);
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("folder {}", dir.display()))?;
    }
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = made.and_then(|mut made| std::io::Write::write_all(&mut made, format!("{hash}\n").as_bytes()));
    written.with_context(|| format!("file {}", file.display()))?;
    report::notice(format_args!(
        "API key, shown this once: {key}\nIts hash is kept in {}; delete that file to get another, or set WINDLASS_API_KEYS.",
        file.display()
    ));
    Ok(hash)
}

pub(crate) async fn run(settings: &Settings, args: &ApiArgs, as_json: bool) -> anyhow::Result<ExitCode> {
    crate::eviction::guard(settings).await?;
    let stores = Stores::open(settings).await?;
    let mut signals = Signals::listen()?;
    let listener = bind(args.listen.unwrap_or(settings.listen)).await?;
    let mut server = Server::on(listener, settings, &stores, None, None)?;
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
