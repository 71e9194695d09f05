//! Errors, sorted by what to do about them.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::cause::{Cause, is_denied_in_script};

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again later: the server is away, slow, loading or failing over.
    Retryable,
    /// The server has no room; nothing was changed. Shed load.
    Full,
    /// The server refuses this client until someone changes a setting.
    Denied,
    /// Neither the network nor the server's state explains it: a fault of ours.
    Bug,
}

/// A call that did not work out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("redis at {server}: {what}")]
pub struct Error {
    server: String,
    what: &'static str,
    class: Class,
    cause: Cause,
    #[source]
    source: Option<RedisError>,
}

impl Error {
    pub(crate) fn new(server: &str, source: RedisError) -> Self {
        Self::with_cause(server, Cause::of(&source), source)
    }

    /// One met while a connection came up, where a garbled answer says something about TLS.
    pub(crate) fn at_connect(server: &str, is_tls: bool, source: RedisError) -> Self {
        Self::with_cause(server, Cause::at_connect(is_tls, &source), source)
    }

    fn with_cause(server: &str, cause: Cause, source: RedisError) -> Self {
        let class = classify(&source);
        let what = cause.what().unwrap_or(match class {
            Class::Retryable => "no answer",
            Class::Full => "out of memory",
            Class::Denied => "refused",
            Class::Bug => "unexpected answer",
        });
        Self { server: server.to_owned(), what, class, cause, source: Some(source) }
    }

    /// One of a caller that waited no longer.
    #[must_use]
    pub fn timeout(server: &str, what: &'static str) -> Self {
        Self { server: server.to_owned(), what, class: Class::Retryable, cause: Cause::Timeout, source: None }
    }

    /// One that no server said.
    pub(crate) fn away(server: &str, what: &'static str, cause: Cause) -> Self {
        Self { server: server.to_owned(), what, class: Class::Retryable, cause, source: None }
    }

    /// The same in the redis crate's words.
    pub(crate) fn into_client(self) -> RedisError {
        let what = self.what;
        self.source.unwrap_or_else(|| RedisError::from((ErrorKind::Io, what)))
    }

    /// What lies behind it, where that can be told.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// What to do about it.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The server's own error code, such as `"NOSCRIPT"`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.source.as_ref().and_then(RedisError::code)
    }

    /// What the server's error said behind its code.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.source.as_ref().and_then(RedisError::detail)
    }

    /// True when the connection it came over can no longer be trusted.
    pub(crate) fn breaks_connection(&self) -> bool {
        match &self.source {
            None => true,
            Some(e) => {
                e.is_io_error()
                    || e.is_timeout()
                    || e.is_connection_dropped()
                    || e.is_unrecoverable_error()
                    || moved_away(e)
            }
        }
    }
}

/// The server is no longer the one to write to: look it up again.
fn moved_away(e: &RedisError) -> bool {
    matches!(e.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}

/// Sorts a client error. Script errors of Redis 6.2 hide the inner code in the text.
fn classify(e: &RedisError) -> Class {
    let code = e.code().unwrap_or_default();
    let text = e.detail().unwrap_or_default();
    match code {
        "OOM" => return Class::Full,
        "LOADING" | "BUSY" | "MISCONF" | "READONLY" | "NOREPLICAS" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN"
        | "MOVED" | "ASK" | "UNBLOCKED" => {
            return Class::Retryable;
        }
        "NOAUTH" | "WRONGPASS" | "NOPERM" => return Class::Denied,
        _ => {}
    }
    if text.contains("OOM command not allowed") {
        return Class::Full;
    }
    if is_denied_in_script(e) {
        return Class::Denied;
    }
    match e.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => Class::Denied,
        ErrorKind::Io
        | ErrorKind::Parse
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel => Class::Retryable,
        _ if e.is_io_error() || e.is_timeout() || e.is_connection_dropped() => Class::Retryable,
        _ => Class::Bug,
    }
}
