//! Sessions of people in a browser: a cookie that stands for an API key.
//!
//! The session holds the key's id and hash, so that a key that is revoked or has expired ends its
//! sessions too. A request that changes something is taken from a session only when it comes from
//! this very site.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use serde::{Deserialize, Serialize};

use crate::Shared;
use crate::keys::{self, KeyHash, hash_key};

/// The cookie's name.
const COOKIE: &str = "windlass_session";
/// How long a session lasts.
const LASTS: Duration = Duration::from_secs(12 * 60 * 60);

/// Whose session it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionKey {
    /// The key's id; empty for one of the settings.
    pub(crate) id: String,
    /// The key's hash.
    pub(crate) hash: KeyHash,
}

/// Begins a session for a valid key: the cookie to set. `None` when the key is not valid.
pub(crate) async fn begin(shared: &Shared, key: &str, headers: &HeaderMap) -> Option<HeaderValue> {
    let session = SessionKey { id: keys::id_of(key.as_bytes()).unwrap_or_default().to_owned(), hash: hash_key(key) };
    shared.options.auth.of_session(&shared.ring, &session)?;
    let data = serde_json::to_value(&session).ok()?;
    let token = shared.caching.sessions.create(&data, LASTS).await.ok()?.value;
    let https = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    HeaderValue::from_str(&cookie(shared, &token, LASTS.as_secs(), https)).ok()
}

/// The text of the cookie: gone at once with `seconds` 0.
pub(crate) fn cookie(shared: &Shared, token: &str, seconds: u64, https: bool) -> String {
    let base = shared.options.base_path.as_str();
    let path = if base.is_empty() { "/" } else { base };
    let secure = if https { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Ends the session of a request, if it has one.
pub(crate) async fn end(shared: &Shared, headers: &HeaderMap) {
    if let Some(token) = token(headers) {
        // A session that cannot be ended now ends by itself.
        let _ = shared.caching.sessions.delete(&token).await;
    }
}

/// The session of a request that brings no key of its own.
pub(crate) async fn of(shared: &Shared, method: &Method, headers: &HeaderMap) -> Option<SessionKey> {
    if headers.contains_key(header::AUTHORIZATION) || !(method.is_safe() || is_own_site(headers)) {
        return None;
    }
    let session = shared.caching.sessions.get(&token(headers)?).await.ok()?.value?;
    serde_json::from_value(session.data).ok()
}

/// True for a request with a session, valid or not.
pub(crate) fn is_brought(headers: &HeaderMap) -> bool {
    token(headers).is_some()
}

fn token(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token.to_owned())
}

/// True for a request that a page of this very site made: browsers say so, and no script of
/// another site can.
pub(crate) fn is_own_site(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let own = |origin: &HeaderValue| {
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(_, at)| at.as_bytes() == host)
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let said = match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => headers.contains_key(header::ORIGIN),
    };
    said && origins.all(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B30: whoever does not say where a request comes from, or says another site, is not taken.
    #[test]
    fn only_a_page_of_ours_is_our_site() {
        let check = |pairs: &[(&'static str, &'static str)], expected| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("jobs.example:8001"));
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_own_site(&headers), expected, "{pairs:?}");
        };
        check(&[], false);
        check(&[("origin", "https://jobs.example:8001")], true);
        check(&[("origin", "https://jobs.example")], false);
        check(&[("origin", "null")], false);
        check(&[("origin", "https://jobs.example:8001"), ("origin", "https://evil.example")], false);
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "same-site")], false);
        check(&[("sec-fetch-site", "cross-site"), ("origin", "https://jobs.example:8001")], false);
    }
}
