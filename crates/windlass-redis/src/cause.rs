//! What lies behind an error, told so that somebody can do something about it.

use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};
use rustls::{AlertDescription, CertificateError};

/// What lies behind an error, where that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nobody listens there.
    Refused,
    /// The name has no address.
    UnknownHost,
    /// Nothing came in time.
    Timeout,
    /// The server wants a password.
    NoAuth,
    /// User and password do not fit.
    WrongPassword,
    /// The user may not do that.
    NoPermission,
    /// TLS was spoken to a port that speaks plain Redis.
    TlsToPlain,
    /// Plain Redis was spoken to a port that closed it or answered in another language.
    PlainToTls,
    /// The server's certificate comes from an authority that is not trusted.
    UnknownIssuer,
    /// The server's certificate is for another name.
    WrongName,
    /// The server's certificate is past its time.
    Expired,
    /// The server's certificate is not valid yet.
    NotYetValid,
    /// The server does not accept this client's certificate, or wants one.
    ClientCertificate,
    /// Something else about TLS.
    Tls,
    /// No sentinel answers, or none knows the service.
    NoPrimary,
    /// The server has no room.
    Full,
    /// The server is a replica, which takes no writes.
    ReadOnly,
    /// The server takes no writes because it cannot save them.
    NotPersisting,
    /// The server still reads its data.
    Loading,
    /// Anything else.
    Other,
}

impl Cause {
    pub(crate) fn of(error: &RedisError) -> Self {
        match error.code() {
            Some("NOAUTH") => return Self::NoAuth,
            Some("WRONGPASS") => return Self::WrongPassword,
            Some("NOPERM") => return Self::NoPermission,
            Some("OOM") => return Self::Full,
            Some("READONLY") => return Self::ReadOnly,
            Some("MISCONF") => return Self::NotPersisting,
            Some("LOADING") => return Self::Loading,
            _ => {}
        }
        // Scripts of Redis 6.2 hide the code in the text.
        if error.detail().is_some_and(|text| text.contains("OOM command not allowed")) {
            return Self::Full;
        }
        if is_denied_in_script(error) {
            return Self::NoPermission;
        }
        if let Some(tls) = tls_error(error) {
            return Self::of_tls(tls);
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::of_login(error),
            ErrorKind::MasterNameNotFoundBySentinel => Self::NoPrimary,
            _ if error.is_timeout() => Self::Timeout,
            _ if error.is_connection_refusal() => Self::Refused,
            _ if error.to_string().contains("failed to lookup address") => Self::UnknownHost,
            _ => Self::Other,
        }
    }

    pub(crate) fn at_connect(is_tls: bool, error: &RedisError) -> Self {
        match Self::of(error) {
            Self::Other if !is_tls && (error.kind() == ErrorKind::Parse || is_closed(error)) => Self::PlainToTls,
            Self::Other if is_tls && is_closed(error) => Self::ClientCertificate,
            cause => cause,
        }
    }

    /// The client's library hides the server's code behind a kind of its own.
    fn of_login(error: &RedisError) -> Self {
        let text = error.to_string();
        let says = |code: &str| text.contains(code);
        if says("NOAUTH") { Self::NoAuth } else { Self::WrongPassword }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(wrong) => match wrong {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
                _ => Self::Tls,
            },
            rustls::Error::InvalidMessage(_) => Self::TlsToPlain,
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::HandshakeFailure
                | AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown,
            ) => Self::ClientCertificate,
            _ => Self::Tls,
        }
    }

    /// In a few words; `None` for [`Cause::Other`].
    #[must_use]
    pub const fn what(self) -> Option<&'static str> {
        Some(match self {
            Self::Refused => "connection refused",
            Self::UnknownHost => "the host name has no address",
            Self::Timeout => "no answer in time",
            Self::NoAuth => "the server wants a password",
            Self::WrongPassword => "wrong user or password",
            Self::NoPermission => "this user may not do that",
            Self::TlsToPlain => "the server does not speak TLS there",
            Self::PlainToTls => "the server does not speak plain Redis there",
            Self::UnknownIssuer => "the server's certificate comes from an unknown authority",
            Self::WrongName => "the server's certificate is for another name",
            Self::Expired => "the server's certificate has expired",
            Self::NotYetValid => "the server's certificate is not valid yet",
            Self::ClientCertificate => "the server does not accept this client's certificate, or wants one",
            Self::Tls => "TLS failed",
            Self::NoPrimary => "no sentinel names a primary",
            Self::Full => "out of memory",
            Self::ReadOnly => "that server is a replica",
            Self::NotPersisting => "the server cannot save, and takes no writes",
            Self::Loading => "the server is still reading its data",
            Self::Other => return None,
        })
    }
}

/// Redis 7.0 says so of a script's command without a code of its own.
pub(crate) fn is_denied_in_script(error: &RedisError) -> bool {
    error.detail().is_some_and(|text| text.contains("user executing the script can't"))
}

fn is_closed(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}

/// The TLS library's own error, wherever it lies among the sources.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(found) = source.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // Neither a shared error nor one of input or output names what it wraps as its source.
        let shared = source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>();
        let wrapped = source.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match (shared, wrapped) {
            (Some(shared), _) => Some(shared.as_ref()),
            (None, Some(wrapped)) => Some(wrapped),
            (None, None) => source.source(),
        };
    }
    None
}
