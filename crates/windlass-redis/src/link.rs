//! A connection that comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue as _, Value};
use tokio::sync::watch;

use crate::cause::Cause;
use crate::connect::{Wire, connect};
use crate::error::Error;
use crate::options::Options;

/// A shared way to a Redis, made on first use and made again after it broke.
///
/// Cheap to clone; calls of all clones travel over the same connections. While the server is
/// away a call fails at once instead of waiting for its turn to time out: attempts to connect
/// are at least [`Link::RETRY_EVERY`] apart.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    shown: String,
    open: Mutex<Open>,
    /// Held by the one that connects.
    connecting: tokio::sync::Mutex<Tried>,
    /// How often another server has become the primary.
    moves: watch::Sender<u64>,
    is_watched: AtomicBool,
    /// What is counted; the levels in it are unused.
    counted: Mutex<LinkStats>,
}

/// Why a call of the old primary ends.
const MOVED: &str = "another server has become the primary";

/// How a server is reached by a [`Link`], since the link was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Connections that stand.
    pub connections: usize,
    /// Connections that may stand at most.
    pub max_connections: usize,
    /// Calls under way.
    pub calls: usize,
    /// Connections that were made.
    pub connects: u64,
    /// How long making them took together, TLS and login included.
    pub connecting: Duration,
    /// Connections that did not come about.
    pub failures: u64,
    /// Of those, the ones whose user or password was wrong.
    pub denied: u64,
}

/// The connections that stand.
#[derive(Default)]
struct Open {
    /// Rises whenever they are given up, so that a late error does not close their successors.
    generation: u64,
    members: Vec<Member>,
    is_growing: bool,
}

#[derive(Clone)]
struct Member {
    wire: Wire,
    /// Each call under way holds one more.
    calls: Arc<()>,
}

#[derive(Default)]
struct Tried {
    failed: Option<(Instant, Error)>,
    said: Option<Cause>,
}

impl Link {
    /// The least time between two attempts to connect.
    pub const RETRY_EVERY: Duration = Duration::from_millis(200);
    /// Calls under way on every connection before another one is opened.
    pub const CALLS_PER_CONNECTION: usize = 128;

    /// A link to a server, which is not contacted yet.
    ///
    /// # Errors
    /// When the options name no usable server.
    pub fn new(options: Options) -> Result<Self, Error> {
        let shown = options.shown();
        let inner = Inner {
            options,
            shown,
            open: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            moves: watch::Sender::new(0),
            is_watched: AtomicBool::new(false),
            counted: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How this server is reached.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The same as a URL, without its password.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.inner.shown
    }

    /// How many connections stand, of at most [`Options::max_connections`].
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.open().members.len()
    }

    /// How the server is reached.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        let open = self.inner.open();
        LinkStats {
            connections: open.members.len(),
            max_connections: self.inner.options.max_connections,
            calls: open.members.iter().map(|member| Arc::strong_count(&member.calls) - 1).sum(),
            ..*self.inner.counted()
        }
    }

    /// How often the connections were given up and made anew: since then another server may answer,
    /// and what the former one accepted last may be lost with it. Of a cluster, whose servers are
    /// replaced within a connection, it says less.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.open().generation
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// [`Error`]. After [`Class::Retryable`](crate::Class::Retryable) it is not known whether
    /// the command took effect.
    pub async fn call(&self, command: &Cmd) -> Result<Value, Error> {
        let (mut member, generation) = self.member().await?;
        let reply = self.unless_moved(member.wire.send(command)).await;
        self.judge(reply, generation)
    }

    /// Sends a command that names no key to the server that holds this one.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub(crate) async fn call_at(&self, key: &[u8], command: &Cmd) -> Result<Value, Error> {
        let (mut member, generation) = self.member().await?;
        let reply = self.unless_moved(member.wire.send_to(key, command)).await;
        self.judge(reply, generation)
    }

    /// Sends commands one right after the other, over one connection to the server that holds a key,
    /// and answers what became of each.
    pub(crate) async fn call_row(&self, key: &[u8], commands: &[Cmd]) -> Result<Vec<Result<Value, Error>>, Error> {
        let (mut member, generation) = self.member().await?;
        let replies = self.unless_moved(member.wire.send_row(key, commands)).await;
        match replies {
            Some(Ok(replies)) => Ok(replies.into_iter().map(|reply| self.judge(Some(Ok(reply)), generation)).collect()),
            Some(Err(error)) => Err(self.failed(error, generation)),
            None => Err(Error::timeout(&self.inner.shown, MOVED)),
        }
    }

    /// `PING`.
    ///
    /// # Errors
    /// [`Error`] when the server does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call(&redis::cmd("PING")).await.map(|_| ())
    }

    /// A section of `INFO`; of a cluster that of each primary, one after the other.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub async fn info(&self, section: &str) -> Result<Vec<String>, Error> {
        let mut command = redis::cmd("INFO");
        command.arg(section);
        let text = |value| String::from_redis_value(value).unwrap_or_default();
        Ok(match self.call(&command).await? {
            Value::Map(nodes) => nodes.into_iter().map(|(_, info)| text(info)).collect(),
            info => vec![text(info)],
        })
    }

    /// Counts how often another server has become the primary.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.inner.moves.subscribe()
    }

    /// Waits for a reply, but not for one of a server that is the primary no more.
    async fn unless_moved<T>(
        &self,
        reply: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Option<Result<T, redis::RedisError>> {
        if !self.inner.options.is_sentinel() {
            return Some(reply.await);
        }
        let mut moves = self.moves();
        tokio::select! {
            reply = reply => Some(reply),
            _ = moves.changed() => None,
        }
    }

    fn judge(&self, reply: Option<Result<Value, redis::RedisError>>, generation: u64) -> Result<Value, Error> {
        match reply {
            Some(Ok(Value::ServerError(error))) => Err(self.failed(error.into(), generation)),
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(self.failed(error, generation)),
            None => Err(Error::timeout(&self.inner.shown, MOVED)),
        }
    }

    fn failed(&self, error: redis::RedisError, generation: u64) -> Error {
        let error = Error::new(&self.inner.shown, error);
        if error.breaks_connection() {
            self.inner.give_up(generation);
        }
        error
    }

    /// The least busy connection, made first where there is none.
    async fn member(&self) -> Result<(Member, u64), Error> {
        if let Some(found) = self.standing() {
            return Ok(found);
        }
        let mut tried = self.inner.connecting.lock().await;
        // Somebody else may have made it meanwhile.
        if let Some(found) = self.standing() {
            return Ok(found);
        }
        if let Some((at, error)) = &tried.failed
            && at.elapsed() < Self::RETRY_EVERY
        {
            return Err(error.clone());
        }
        self.watch_sentinels();
        match self.connect().await {
            Ok(wire) => {
                tried.failed = None;
                if tried.said.take().is_some() || self.inner.counted().connects == 1 {
                    tracing::info!(event = "redis_connected", server = self.shown(), "Redis connected successfully");
                }
                let mut open = self.inner.open();
                let member = Member { wire, calls: Arc::default() };
                open.members = vec![member.clone()];
                Ok((member, open.generation))
            }
            Err(error) => {
                // Once for each new reason.
                if tried.said.replace(error.cause()) != Some(error.cause()) {
                    let error = chain(&error);
                    tracing::warn!(
                        event = "redis_connection_failed",
                        server = self.shown(),
                        error,
                        "Redis connection failed"
                    );
                }
                tried.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Connects, and counts it.
    async fn connect(&self) -> Result<Wire, Error> {
        let begun = Instant::now();
        let made = Box::pin(connect(&self.inner.options, self.moves())).await;
        let mut counted = self.inner.counted();
        match &made {
            Ok(_) => {
                counted.connects += 1;
                counted.connecting += begun.elapsed();
            }
            Err(error) => {
                counted.failures += 1;
                counted.denied += u64::from(matches!(error.cause(), Cause::NoAuth | Cause::WrongPassword));
            }
        }
        drop(counted);
        made
    }

    fn standing(&self) -> Option<(Member, u64)> {
        let mut open = self.inner.open();
        let member = open.members.iter().min_by_key(|member| Arc::strong_count(&member.calls))?.clone();
        let busy = Arc::strong_count(&member.calls) > Self::CALLS_PER_CONNECTION;
        let most = if self.inner.options.is_cluster() { 1 } else { self.inner.options.max_connections };
        if busy && !open.is_growing && open.members.len() < most {
            open.is_growing = true;
            tokio::spawn(self.clone().grow(open.generation));
        }
        Some((member, open.generation))
    }

    /// Opens one more connection; where that fails the others have to do.
    async fn grow(self, generation: u64) {
        let wire = self.connect().await;
        let mut open = self.inner.open();
        open.is_growing = false;
        if let Ok(wire) = wire
            && open.generation == generation
        {
            open.members.push(Member { wire, calls: Arc::default() });
        }
    }

    fn watch_sentinels(&self) {
        if self.inner.options.is_sentinel() && !self.inner.is_watched.swap(true, Ordering::SeqCst) {
            tokio::spawn(crate::sentinel::watch(Arc::downgrade(&self.inner)));
        }
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted(&self) -> MutexGuard<'_, LinkStats> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, generation: u64) {
        let mut open = self.open();
        if open.generation == generation {
            open.generation += 1;
            open.members.clear();
        }
    }

    /// Another server has become the primary: whoever waits for the old one waits no longer.
    pub(crate) fn moved(&self) {
        let generation = self.open().generation;
        self.give_up(generation);
        self.moves.send_modify(|moves| *moves += 1);
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.shown())
    }
}

/// An error with all its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
