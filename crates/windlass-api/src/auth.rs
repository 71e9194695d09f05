//! Who may ask: API keys, and what replaces them on loopback.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::problem::{Code, Problem};

/// Who is let in.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Everyone who reaches this host's loopback address, without a key. A `Host` that is not
    /// loopback is refused (DNS rebinding), and so is an unsafe method from another site.
    /// [`serve`](crate::serve) refuses to start with it on any other address. The default.
    #[default]
    LoopbackOpen,
    /// Whoever brings one of these keys as `Authorization: Bearer KEY`.
    Keys(Vec<KeyHash>),
}

/// The SHA-256 of an API key: what is kept of it. A key holds 256 random bits, so a fast
/// hash is enough.
///
/// *Shape as text*: 64 hex digits. `Debug` shows none of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(***)")
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A text that is no key hash; it is not repeated, for it may be a key put there by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key hash is 64 hex digits")]
pub struct BadKeyHash;

impl FromStr for KeyHash {
    type Err = BadKeyHash;
    fn from_str(s: &str) -> Result<Self, BadKeyHash> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(s, &mut bytes).map_err(|_| BadKeyHash)?;
        Ok(Self(bytes))
    }
}

/// A new API key, to be shown once and kept nowhere.
///
/// *Shape*: `wl_<26 characters that tell keys apart>_<64 hex digits>`.
///
/// # Panics
/// When the system has no randomness to give.
#[must_use]
pub fn generate_key() -> String {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).expect("the system gives random bytes");
    format!("wl_{}_{}", windlass_jobs::new_ulid().to_string().to_ascii_lowercase(), hex::encode(secret))
}

/// What is kept of a key.
#[must_use]
pub fn hash_key(key: &str) -> KeyHash {
    KeyHash(Sha256::digest(key).into())
}

impl Auth {
    /// Refuses requests that a browser was tricked into; only where no key is asked for.
    pub(crate) fn check_site(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        if !matches!(self, Self::LoopbackOpen) {
            return Ok(());
        }
        let host = single(headers, header::HOST).and_then(|host| host.to_str().ok());
        let authority_fits = uri.authority().is_none_or(|authority| is_loopback(authority.as_str()));
        let Some(host) = host.filter(|host| is_loopback(host) && authority_fits) else {
            let detail = "without an API key only localhost, 127.0.0.1 and [::1] are answered";
            return Err(Problem::new(Code::HostRefused, detail));
        };
        let own = |origin: &HeaderValue| {
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(_, at)| at == host)
        };
        if !is_safe(method) && headers.get_all(header::ORIGIN).iter().any(|origin| !own(origin)) {
            return Err(Problem::new(Code::OriginRefused, "another site may not change anything here"));
        }
        Ok(())
    }

    /// Lets a request with a valid key pass. Whatever is wrong with a key, the answer and the
    /// work done are the same: one hash, compared with every kept one in constant time.
    pub(crate) fn check_key(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Self::Keys(keys) = self else { return Ok(()) };
        let given = single(headers, header::AUTHORIZATION).and_then(bearer);
        let KeyHash(hash) = KeyHash(Sha256::digest(given.unwrap_or_default()).into());
        let known = keys.iter().fold(subtle::Choice::from(0), |known, KeyHash(key)| known | key.ct_eq(&hash));
        if given.is_some() && bool::from(known) {
            return Ok(());
        }
        let problem = Problem::new(Code::Unauthorized, "send a valid key as Authorization: Bearer KEY");
        Err(problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

/// True for methods that change nothing.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// A header's value when it is there exactly once.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&HeaderValue> {
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())
}

/// The key in `Bearer KEY`; the scheme in any case.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, key) = value.as_bytes().split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}

/// True for `localhost`, `127.0.0.1` and `[::1]`, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for good in ["localhost", "LOCALHOST:8001", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8001"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil.example:80",
            "127.0.0.2",
            "::1",
            "[::1",
            "0.0.0.0",
            "localhost:80:80",
            "localhost:x",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn keys_are_long_and_differ_and_their_hash_is_readable_back() {
        let (a, b) = (generate_key(), generate_key());
        assert_ne!(a, b);
        let parts: Vec<&str> = a.split('_').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("wl", 26, 64));
        let hash = hash_key(&a);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(format!("{hash:?}"), "KeyHash(***)");
        assert_eq!(a.parse::<KeyHash>(), Err(BadKeyHash));
    }
}
