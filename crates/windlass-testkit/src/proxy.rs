//! A TCP proxy that misbehaves on request: what a network does to a client and its server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// Most bytes passed on at once.
const CHUNK: usize = 64 * 1024;

/// What the proxy does. A change holds at once, for connections that stand too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Everything passes.
    None,
    /// Every chunk is held for this long, in each direction.
    Latency(Duration),
    /// Nothing passes and nothing is closed: a cable is out. New connections are accepted and
    /// pass nothing either.
    Stall,
    /// Connections that stand pass nothing more; new ones pass everything: a half-open peer.
    StallOld,
    /// Every connection is reset, and each new one as soon as it is accepted.
    Reset,
    /// Nobody listens on the port; connections that stand are reset.
    Refuse,
    /// Requests pass; of all that is answered from now on, so many bytes pass on each
    /// connection, which is then reset. New connections too.
    CutReplies(usize),
    /// As [`Fault::CutReplies`], of what is asked.
    CutRequests(usize),
    /// Everything passes, so many bytes at a time.
    Slice(usize),
}

/// A proxy on a port of its own before a server on 127.0.0.1. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    fault: watch::Sender<Fault>,
    accepted: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    /// Starts one that passes everything to the server on `port`.
    ///
    /// # Panics
    /// When the loopback interface has no free port.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let own = listener.local_addr().expect("a bound socket has an address").port();
        let (fault, faults) = watch::channel(Fault::None);
        let accepted = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let front = Front { own, server: port, faults, accepted: Arc::clone(&accepted) };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener that does not block");
                tokio::select! {
                    () = front.listen(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port: own, fault, accepted, _stop: stop }
    }

    /// `redis://127.0.0.1:<its port>`.
    #[must_use]
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Misbehaves in this way from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many connections it has accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

struct Front {
    own: u16,
    server: u16,
    faults: watch::Receiver<Fault>,
    accepted: Arc<AtomicU64>,
}

impl Front {
    async fn listen(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            if *self.faults.borrow_and_update() == Fault::Refuse {
                listener = None;
                if self.faults.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(open) = &listener else {
                listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.own)).await.ok();
                if listener.is_none() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                continue;
            };
            tokio::select! {
                changed = self.faults.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                accepted = open.accept() => {
                    let Ok((client, _)) = accepted else { continue };
                    self.accepted.fetch_add(1, Ordering::SeqCst);
                    let (server, faults) = (self.server, self.faults.clone());
                    tokio::spawn(connect(client, server, faults));
                }
            }
        }
    }
}

async fn connect(client: TcpStream, server: u16, faults: watch::Receiver<Fault>) {
    let born_under = *faults.borrow();
    if born_under == Fault::Reset {
        reset(&client);
        return;
    }
    let Ok(server) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server))).await else {
        reset(&client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Reset, not closed, when it is dropped after a fault.
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let is_old = move |fault| fault == Fault::StallOld && born_under != Fault::StallOld;
    let asks = Direction { from: client_read, to: server_write, faults: faults.clone(), is_reply: false };
    let answers = Direction { from: server_read, to: client_write, faults, is_reply: true };
    let (mut asks, mut answers) = (asks, answers);
    let fate = tokio::select! {
        fate = asks.pass(is_old) => fate,
        fate = answers.pass(is_old) => fate,
    };
    if fate == Fate::Reset {
        reset(asks.from.as_ref());
        reset(answers.from.as_ref());
    }
}

/// Lets the socket send a RST when it is closed.
fn reset(socket: &TcpStream) {
    // Fails only on a socket that is closed already.
    let _ = socket.set_zero_linger();
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Closed,
    Reset,
}

struct Direction {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    faults: watch::Receiver<Fault>,
    is_reply: bool,
}

impl Direction {
    async fn pass(&mut self, is_old: impl Fn(Fault) -> bool) -> Fate {
        let mut buffer = vec![0; CHUNK];
        let mut passed_since = 0;
        let mut fault = *self.faults.borrow_and_update();
        loop {
            let stalls = fault == Fault::Stall || is_old(fault);
            tokio::select! {
                biased;
                changed = self.faults.changed() => {
                    if changed.is_err() {
                        return Fate::Closed;
                    }
                    fault = *self.faults.borrow_and_update();
                    passed_since = 0;
                    if matches!(fault, Fault::Reset | Fault::Refuse) {
                        return Fate::Reset;
                    }
                }
                read = self.from.read(&mut buffer), if !stalls => {
                    let Ok(n @ 1..) = read else { return Fate::Closed };
                    let most = match (fault, self.is_reply) {
                        (Fault::CutReplies(most), true) | (Fault::CutRequests(most), false) => Some(most),
                        _ => None,
                    };
                    let take = most.map_or(n, |most| n.min(most - passed_since));
                    if self.write(&buffer[..take], fault).await.is_err() {
                        return Fate::Closed;
                    }
                    passed_since += take;
                    if take < n {
                        return Fate::Reset;
                    }
                }
            }
        }
    }

    async fn write(&mut self, bytes: &[u8], fault: Fault) -> std::io::Result<()> {
        match fault {
            Fault::Latency(held) => tokio::time::sleep(held).await,
            Fault::Slice(size) => {
                for slice in bytes.chunks(size.max(1)) {
                    self.to.write_all(slice).await?;
                    tokio::task::yield_now().await;
                }
                return Ok(());
            }
            _ => {}
        }
        self.to.write_all(bytes).await
    }
}
