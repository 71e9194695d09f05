//! A connection that comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Value};
use tokio::sync::Mutex;

use crate::error::Error;
use crate::options::Options;

/// One shared connection to a Redis, made on first use and made again after it broke.
///
/// Cheap to clone; calls of all clones travel over the same connection. While the server is
/// away a call fails at once instead of waiting for its turn to time out: attempts to connect
/// are at least [`Link::RETRY_EVERY`] apart.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    client: Client,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// Rises with each connection, so that a late error does not close its successor.
    generation: u64,
    failed: Option<(Instant, Error)>,
}

impl Link {
    /// The least time between two attempts to connect.
    pub const RETRY_EVERY: Duration = Duration::from_millis(200);

    /// A link to a server, which is not contacted yet.
    ///
    /// # Errors
    /// When the options name no usable server.
    pub fn new(options: Options) -> Result<Self, Error> {
        let client = Client::open(options.info.clone()).map_err(|e| Error::new(options.shown(), e))?;
        Ok(Self { inner: Arc::new(Inner { options, client, slot: Mutex::default() }) })
    }

    /// How this server is reached.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// [`Error`]. After [`Class::Retryable`](crate::Class::Retryable) it is not known whether
    /// the command took effect.
    pub async fn call(&self, command: &Cmd) -> Result<Value, Error> {
        let (mut connection, generation) = self.connection().await?;
        let reply = match connection.send_packed_command(command).await {
            Ok(Value::ServerError(e)) => Err(e.into()),
            other => other,
        };
        match reply {
            Ok(value) => Ok(value),
            Err(e) => {
                let error = Error::new(self.inner.options.shown(), e);
                if error.breaks_connection() {
                    self.drop_connection(generation).await;
                }
                Err(error)
            }
        }
    }

    /// `PING`.
    ///
    /// # Errors
    /// [`Error`] when the server does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.call(&redis::cmd("PING")).await.map(|_| ())
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), Error> {
        let mut slot = self.inner.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((connection.clone(), slot.generation));
        }
        if let Some((at, error)) = &slot.failed
            && at.elapsed() < Self::RETRY_EVERY
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                slot.connection = Some(connection.clone());
                slot.generation += 1;
                if slot.failed.take().is_some() {
                    tracing::info!(server = self.inner.options.shown(), "Redis connected successfully");
                }
                Ok((connection, slot.generation))
            }
            Err(error) => {
                if slot.failed.is_none() {
                    tracing::warn!(server = self.inner.options.shown(), error = %chain(&error), "Redis connection failed");
                }
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        let options = &self.inner.options;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout));
        let connecting = self.inner.client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(options.connect_timeout, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(e)) => Err(Error::new(options.shown(), e)),
            Err(_) => Err(Error::timeout(options.shown(), "no connection in time")),
        }
    }

    async fn drop_connection(&self, generation: u64) {
        let mut slot = self.inner.slot.lock().await;
        if slot.generation == generation {
            slot.connection = None;
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.inner.options.shown())
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
