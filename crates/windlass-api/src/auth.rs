//! Who asks: by an API key, or from this host's loopback address without one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use subtle::ConstantTimeEq;

use crate::keys::{Key, KeyHash, Rate, hash_key, id_of};
use crate::problem::{Code, Problem};
use crate::ring::Ring;
use crate::routes::{Route, Sees};
use crate::scope::{Grant, Scope};
use crate::session::SessionKey;

/// What is answered without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anonymous {
    /// What is public.
    #[default]
    Nothing,
    /// Also what only reads, and is no administration.
    Reading,
    /// Everything.
    Everything,
}

/// Who is let in.
///
/// Where anything but [`Anonymous::Nothing`] is allowed, a `Host` that is not loopback is refused
/// (DNS rebinding), and so is an unsafe method from another site; and [`serve`](crate::serve)
/// refuses to listen on any other address.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// Default [`Anonymous::Nothing`].
    pub anonymous: Anonymous,
    /// Keys that may do everything, beside those that are kept. Default none.
    pub fixed: Vec<KeyHash>,
}

impl Auth {
    /// Everyone who reaches loopback may do everything.
    #[must_use]
    pub const fn open() -> Self {
        Self { anonymous: Anonymous::Everything, fixed: Vec::new() }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    Nobody,
    Fixed,
    Key(Key),
}

impl Caller {
    fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Who it is, for the audit log: a key's id and name.
    pub(crate) fn who(&self) -> (&str, Option<&str>) {
        match &*self.0 {
            Inner::Nobody => ("loopback", None),
            Inner::Fixed => ("settings", None),
            Inner::Key(key) => (&key.id, Some(&key.name)),
        }
    }

    /// Whose key it is; `None` sees everything.
    pub(crate) fn tenant(&self) -> Option<&str> {
        match &*self.0 {
            Inner::Key(key) => key.tenant.as_deref(),
            Inner::Nobody | Inner::Fixed => None,
        }
    }

    /// True when something of this tenant is there for the caller.
    pub(crate) fn sees(&self, tenant: Option<&str>) -> bool {
        self.tenant().is_none_or(|own| tenant == Some(own))
    }

    /// A name as it is kept: a tenant's names are apart from all others.
    pub(crate) fn own(&self, name: String) -> String {
        match self.tenant() {
            // No tenant has a colon in its name, so that no two names become one.
            Some(tenant) => format!("tenant:{tenant}:{name}"),
            None => name,
        }
    }

    /// How often it may ask, with the key's id; `None`: as the settings say.
    pub(crate) fn rate(&self) -> Option<(&str, Option<Rate>)> {
        match &*self.0 {
            Inner::Key(key) => Some((&key.id, key.rate)),
            Inner::Nobody | Inner::Fixed => None,
        }
    }

    /// True when the caller may also do this, on the route it was let in to.
    pub(crate) fn may(&self, scope: Scope, anonymous: Anonymous) -> bool {
        match &*self.0 {
            Inner::Nobody => match anonymous {
                Anonymous::Nothing => false,
                Anonymous::Reading => scope.is_reading(),
                Anonymous::Everything => true,
            },
            Inner::Fixed => true,
            Inner::Key(key) => key.scopes.iter().any(|grant| grant.allows(scope)),
        }
    }

    /// True when the caller could do everything the grant stands for.
    pub(crate) fn may_grant(&self, grant: &Grant) -> bool {
        match &*self.0 {
            Inner::Nobody | Inner::Fixed => true,
            Inner::Key(key) => grant.scopes().all(|scope| key.scopes.iter().any(|own| own.allows(scope))),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // The gate puts it there; nobody is let in past it.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(Code::Internal, "the server made a mistake"))
    }
}

impl Auth {
    /// Refuses requests that a browser was tricked into; only where not everything asks for a key.
    pub(crate) fn check_site(
        &self,
        friends: &[String],
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        if self.anonymous == Anonymous::Nothing {
            return Ok(());
        }
        let host = single(headers, header::HOST).and_then(|host| host.to_str().ok());
        let authority_fits = uri.authority().is_none_or(|authority| is_loopback(authority.as_str()));
        let Some(host) = host.filter(|host| is_loopback(host) && authority_fits) else {
            let detail = "on loopback only localhost, 127.0.0.1 and [::1] are answered";
            return Err(Problem::new(Code::HostRefused, detail));
        };
        let own = |origin: &HeaderValue| {
            origin.to_str().ok().is_some_and(|origin| {
                friends.iter().any(|friend| friend == origin || friend == "*")
                    || origin.split_once("://").is_some_and(|(_, at)| at == host)
            })
        };
        if !is_safe(method) && headers.get_all(header::ORIGIN).iter().any(|origin| !own(origin)) {
            return Err(Problem::new(Code::OriginRefused, "another site may not change anything here"));
        }
        Ok(())
    }

    /// Whose session it is; `None` when its key is no longer valid.
    pub(crate) fn of_session(&self, ring: &Ring, session: &SessionKey) -> Option<Caller> {
        if self.fixed.iter().any(|key| bool::from(key.0.ct_eq(&session.hash.0))) {
            return Some(Caller::new(Inner::Fixed));
        }
        ring.find(Some(&session.id), session.hash).map(|key| Caller::new(Inner::Key(key)))
    }

    /// Finds out who asks. A key that is not valid is never taken for none. Whatever is wrong with
    /// it, the answer and the work done are the same: one hash, compared with every fixed one and
    /// two others in constant time.
    pub(crate) fn identify(
        &self,
        ring: &Ring,
        headers: &HeaderMap,
        session: Option<&SessionKey>,
        route: &Route,
    ) -> Result<Caller, Problem> {
        if route.scope == Scope::Public {
            return Ok(Caller::new(Inner::Nobody));
        }
        let given = single(headers, header::AUTHORIZATION).and_then(bearer);
        let hash = hash_key(&String::from_utf8_lossy(given.unwrap_or_default()));
        let fixed = self.fixed.iter().fold(subtle::Choice::from(0), |known, key| known | key.0.ct_eq(&hash.0));
        let kept = ring.find(given.and_then(id_of), hash);
        if given.is_some() && bool::from(fixed) {
            return Ok(Caller::new(Inner::Fixed));
        }
        if let Some(key) = kept {
            return Ok(Caller::new(Inner::Key(key)));
        }
        if let Some(caller) = session.and_then(|session| self.of_session(ring, session)) {
            return Ok(caller);
        }
        let open = match self.anonymous {
            Anonymous::Nothing => false,
            Anonymous::Reading => route.scope.is_reading(),
            Anonymous::Everything => true,
        };
        if open && !headers.contains_key(header::AUTHORIZATION) {
            return Ok(Caller::new(Inner::Nobody));
        }
        let problem = Problem::new(Code::Unauthorized, "send a valid key as Authorization: Bearer KEY");
        Err(problem.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

/// Refuses a caller whose key does not allow the route.
pub(crate) fn check_scope(caller: &Caller, route: &Route) -> Result<(), Problem> {
    let Inner::Key(key) = &*caller.0 else { return Ok(()) };
    if !key.scopes.iter().any(|grant| grant.allows(route.scope)) {
        let scope = route.scope.as_str();
        let detail = format!("the key does not allow this: it needs {scope}");
        return Err(Problem::new(Code::ScopeMissing, detail).with("scope", scope));
    }
    if key.tenant.is_some() && route.sees == Sees::All {
        let detail = "this is about everybody's, and the key is bound to a tenant";
        return Err(Problem::new(Code::TenantRefused, detail));
    }
    Ok(())
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
}
