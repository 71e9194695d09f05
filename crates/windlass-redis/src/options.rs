//! How a Redis is reached.

use std::fmt;
use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo};

/// A URL that names no Redis.
#[derive(Debug, Clone, thiserror::Error)]
#[error("redis url {shown:?} cannot be used: {why}")]
pub struct BadUrl {
    /// The URL without its password.
    pub shown: String,
    /// What is wrong, and what is allowed.
    pub why: String,
}

/// How a Redis is reached, and how long anything may take.
#[derive(Clone)]
pub struct Options {
    pub(crate) info: ConnectionInfo,
    shown: String,
    /// The longest a connection may take to come up. Default 10 s.
    pub connect_timeout: Duration,
    /// The longest a reply may take. Default 5 s.
    pub response_timeout: Duration,
}

impl Options {
    /// Default of [`Options::connect_timeout`].
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`Options::response_timeout`].
    pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

    /// Reads `redis://[user][:password@]host[:port][/db]`.
    ///
    /// # Errors
    /// [`BadUrl`], never with the password in it.
    pub fn from_url(url: &str) -> Result<Self, BadUrl> {
        let fail = |why: &str| BadUrl { shown: redact(url), why: why.to_owned() };
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("redis") => {}
            Some("rediss") => return Err(fail("TLS is not built into this version; redis://host:port/db is allowed")),
            Some("http" | "https") => {
                return Err(fail("this is a REST address; the Redis protocol is needed, as in redis://host:port/db"));
            }
            _ => return Err(fail("redis://[user][:password@]host[:port][/db] is allowed")),
        }
        // The client's own message may quote the URL, so it is not passed on.
        let info =
            url.into_connection_info().map_err(|_| fail("redis://[user][:password@]host[:port][/db] is allowed"))?;
        Ok(Self {
            info,
            shown: redact(url),
            connect_timeout: Self::CONNECT_TIMEOUT,
            response_timeout: Self::RESPONSE_TIMEOUT,
        })
    }

    /// The URL with `***` for the password: for people and logs.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({})", self.shown)
    }
}

/// Puts `***` for whatever stands between the first colon after the scheme and the last `@`.
fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    match rest.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split_once(':').map_or("", |(user, _)| user);
            format!("{scheme}://{user}:***@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_never_show() {
        for url in [
            "redis://:geheim@localhost:6379/0",
            "redis://app:geheim@localhost",
            "redis://app:gehe@geheim@localhost",
            "rediss://app:geheim@localhost",
            "https://app:geheim@localhost",
            "geheim",
            "redis://app:geheim@localhost:notaport",
        ] {
            let text = match Options::from_url(url) {
                Ok(options) => format!("{options:?} {}", options.shown()),
                Err(e) => format!("{e} {e:?}"),
            };
            assert!(!text.contains("geheim"), "{text}");
        }
    }

    #[test]
    fn the_right_form_is_named() {
        let check = |url: &str, part: &str| {
            let text = Options::from_url(url).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        };
        check("https://eu1-redis.example:6379", "redis://host:port/db");
        check("localhost:6379", "redis://");
        check("", "redis://");
    }
}
