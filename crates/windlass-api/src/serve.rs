//! Serves the API on a socket: HTTP/1, bounded connections, time limits, and an end in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Anonymous, Api, Inner, build};

/// The pause after a connection could not be accepted, such as without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the end waits for what is still to be written about keys.
const LAST_WRITES: Duration = Duration::from_secs(2);
/// A request's head, in bytes.
const HEAD_BYTES: usize = 64 * 1024;

/// Why the API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is out of range.
    #[error("{setting}: {found}; {allowed} is allowed")]
    Option {
        /// Which.
        setting: &'static str,
        /// What was found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// Whoever asks without a key is let in on loopback only.
    #[error("{0} is reachable from other hosts: ask for API keys, or listen on 127.0.0.1")]
    OpenToTheWorld(SocketAddr),
    /// The listener does not say its address.
    #[error("the listener's address")]
    Listener(#[source] std::io::Error),
}

/// Serves the API until `shutdown` completes, then lets open requests end within
/// [`ApiOptions::drain_timeout`](crate::ApiOptions::drain_timeout). Event streams end at once.
///
/// # Errors
/// [`Error`], before the first connection is accepted; never afterwards.
pub async fn serve(listener: TcpListener, api: Api, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    api.options.check()?;
    let at = listener.local_addr().map_err(Error::Listener)?;
    if api.options.auth.anonymous != Anonymous::Nothing && !at.ip().is_loopback() {
        return Err(Error::OpenToTheWorld(at));
    }
    // Whoever holds blobs for jobs also lets go of them.
    let _housekeeper = windlass_worker::Housekeeper::start(api.broker.clone(), api.services.clone());
    let limits = Limits {
        connections: api.options.connections,
        head_timeout: api.options.head_timeout,
        drain_timeout: api.options.drain_timeout,
    };
    tracing::info!(%at, "serving");
    let streams = CancellationToken::new();
    let (ring, kept) = (Arc::clone(&api.ring), CancellationToken::new());
    ring.begin().await;
    let ring = tokio::spawn(ring.run(kept.clone()));
    let base_path = api.options.base_path.clone();
    let (shared, auditing) = Inner::new(api, streams.clone());
    let auditing = tokio::spawn(auditing);
    // The history behind the charts begins now, not with the first page.
    shared.dashboard.begin(&shared).await;
    let router = under(&base_path, build(shared));
    let shutdown = async {
        shutdown.await;
        streams.cancel();
    };
    accept_all(listener, router, &limits, shutdown).await;
    kept.cancel();
    // What is still to be written is, unless the store is away.
    if tokio::time::timeout(LAST_WRITES, async { tokio::join!(ring, auditing) }).await.is_err() {
        tracing::warn!("last uses of keys or audit entries could not be written");
    }
    Ok(())
}

/// A router that answers below `base_path` as well as without it: some proxies take it off, some
/// pass it on.
fn under(base_path: &str, router: Router) -> Router {
    if base_path.is_empty() {
        return router;
    }
    let prefix = base_path.to_owned();
    let strip = move |mut request: axum::extract::Request| {
        let path = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(&prefix));
        // `/jobs` is the page `/jobs/`; `/jobsite` is not below `/jobs`.
        let path = path
            .filter(|path| path.is_empty() || path.starts_with(['/', '?']))
            .map(|path| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
        if let Some(uri) = path.and_then(|path| path.parse().ok()) {
            *request.uri_mut() = uri;
        }
        request
    };
    Router::new().fallback_service(tower::util::MapRequest::new(router, strip))
}

/// What a listener allows.
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) drain_timeout: Duration,
}

impl Limits {
    /// For probes: few connections, and none that stays long.
    pub(crate) const PROBES: Self =
        Self { connections: 16, head_timeout: Duration::from_secs(5), drain_timeout: Duration::from_millis(200) };
}

/// Accepts connections until `shutdown` completes, then lets open requests end in time.
pub(crate) async fn accept_all(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let stop = CancellationToken::new();
    let service = router.into_service::<Incoming>();
    let slots = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let accepting = async {
        loop {
            // Full: the kernel's queue holds further connections back.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let stream = accept(&listener).await;
            let service = TowerToHyperService::new(service.clone());
            let (stop, head_timeout) = (stop.clone(), limits.head_timeout);
            connections.spawn(async move {
                let _slot = slot;
                connection(stream, service, head_timeout, stop).await;
            });
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    drop(listener);
    stop.cancel();
    let drained =
        tokio::time::timeout(limits.drain_timeout, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(open = connections.len(), "connections cut after the drain timeout");
    }
}

/// The next connection, whatever goes wrong on the way.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers go out at once; a socket that refuses the option works without it.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type Service = TowerToHyperService<axum::routing::RouterIntoService<Incoming>>;

async fn connection(stream: TcpStream, service: Service, head_timeout: Duration, stop: CancellationToken) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}
