//! Every key of these services. Nothing else builds one's name.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{prefix}:{namespace}:{key}` | string, PX | a value as JSON |
//! | `{prefix}:{namespace}:user:{id}:{key}` | string, PX | a user's value |
//! | `{prefix}:{namespace}:…:lead` | string, PX 10 s | who computes the value |
//! | `{prefix}:index:{namespace}` | sorted set, ms | keys of a namespace by their end |
//! | `{prefix}:index:{namespace}:user:{id}` | sorted set, ms, PX | keys of a user by their end |
//! | `{prefix}:index` | sorted set, ms | namespaces by the end of their last key |
//! | `lock:{name}` | string, PX | the holder's token |
//! | `{lock:{name}}:fence` (outer braces literal) | string, PX 1 day | the last fencing number |
//! | `session:{id}` | string, PX | a session's data as JSON |
//! | `rate_limit:{key}` | string, PX | uses in the window, or the theoretical arrival time (GCRA, with `:gcra`) |
//!
//! The last four have the prefix in front unless the old names are asked for. A part of a key is
//! kept byte for byte when it is made of `[A-Za-z0-9_-]`; every other byte is written `%XX`, so
//! that no `:` or `*` of a caller has a meaning.

use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::CachingOptions;

/// The longest part of a name that a caller gives, in bytes.
const MAX_PART_BYTES: usize = 512;

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {found:?}; {allowed} is allowed")]
pub struct BadName {
    /// Which name.
    pub what: &'static str,
    /// What was found, cut.
    pub found: String,
    /// What is allowed.
    pub allowed: &'static str,
}

impl BadName {
    fn new(what: &'static str, found: &str, allowed: &'static str) -> Self {
        Self { what, found: found.chars().take(80).collect(), allowed }
    }
}

/// A space of names with a time of its own, `[a-z0-9_-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// The namespaces of the replaced service, always counted.
    pub const KNOWN: [&'static str; 5] = ["users", "ai", "trading", "analytics", "general"];

    /// A namespace by name.
    ///
    /// # Errors
    /// [`BadName`].
    pub fn new(name: &str) -> Result<Self, BadName> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        if (1..=64).contains(&name.len()) && name.bytes().all(fits) && !matches!(name, "index" | "stats" | "clear") {
            return Ok(Self(name.to_owned()));
        }
        Err(BadName::new("namespace", name, "1 to 64 of a-z 0-9 _ -, but index, stats and clear,"))
    }

    fn known(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// A user's own data; 3,600 s.
    #[must_use]
    pub fn users() -> Self {
        Self::known("users")
    }

    /// Answers of language models; 1,800 s.
    #[must_use]
    pub fn ai() -> Self {
        Self::known("ai")
    }

    /// Quotes and positions; 900 s.
    #[must_use]
    pub fn trading() -> Self {
        Self::known("trading")
    }

    /// Computed statistics; 1,800 s.
    #[must_use]
    pub fn analytics() -> Self {
        Self::known("analytics")
    }

    /// Everything else; the default time.
    #[must_use]
    pub fn general() -> Self {
        Self::known("general")
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How long its values are kept unless the caller says otherwise (`compat.md` §2).
    pub(super) fn ttl(&self, default: Duration) -> Duration {
        match self.as_str() {
            "users" => Duration::from_secs(3600),
            "ai" | "analytics" => Duration::from_secs(1800),
            "trading" => Duration::from_secs(900),
            _ => default,
        }
    }
}

/// The name of a cached value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) namespace: Namespace,
    /// Encoded.
    pub(super) user: Option<String>,
    /// Encoded, parts joined by `:`.
    rest: String,
}

impl Key {
    /// A value of nobody in particular. In `key`, `:` separates parts.
    ///
    /// # Errors
    /// [`BadName`] when a part is empty or too long, or the first is `user`: that is a user's.
    pub fn new(namespace: Namespace, key: &str) -> Result<Self, BadName> {
        let rest = parts(key)?;
        if rest == "user" || rest.starts_with("user:") {
            return Err(BadName::new("key", key, "another first part: a user's value is named with the user"));
        }
        Ok(Self { namespace, user: None, rest })
    }

    /// A user's value. The id is taken as it is, whatever is in it.
    ///
    /// # Errors
    /// [`BadName`] when the id or a part is empty or too long.
    pub fn of_user(namespace: Namespace, user: &str, key: &str) -> Result<Self, BadName> {
        Ok(Self { namespace, user: Some(part("user", user)?), rest: parts(key)? })
    }

    /// `users:user:{user}:{data_type}`.
    ///
    /// # Errors
    /// As [`Key::of_user`].
    pub fn user_data(user: &str, data_type: &str) -> Result<Self, BadName> {
        Self::of_user(Namespace::users(), user, data_type)
    }

    /// `ai:user:{user}:prompt:{hash}`: the answer to a prompt, named by the first 16 hex digits of
    /// its SHA-256.
    ///
    /// # Errors
    /// As [`Key::of_user`].
    pub fn ai(user: &str, prompt: &str) -> Result<Self, BadName> {
        let hash = hex::encode(&Sha256::digest(prompt)[..8]);
        Self::of_user(Namespace::ai(), user, &format!("prompt:{hash}"))
    }

    /// `trading:user:{user}:{symbol}:{data_type}`.
    ///
    /// # Errors
    /// As [`Key::of_user`].
    pub fn trading(user: &str, symbol: &str, data_type: &str) -> Result<Self, BadName> {
        let rest = format!("{}:{}", part("symbol", symbol)?, part("key", data_type)?);
        Ok(Self { namespace: Namespace::trading(), user: Some(part("user", user)?), rest })
    }

    /// `analytics:user:{user}:{data_type}`.
    ///
    /// # Errors
    /// As [`Key::of_user`].
    pub fn analytics(user: &str, data_type: &str) -> Result<Self, BadName> {
        Self::of_user(Namespace::analytics(), user, data_type)
    }
}

fn parts(key: &str) -> Result<String, BadName> {
    let parts: Result<Vec<String>, BadName> = key.split(':').map(|text| part("key", text)).collect();
    let joined = parts?.join(":");
    if joined.len() > 2 * MAX_PART_BYTES {
        return Err(BadName::new("key", key, "at most 1024 bytes"));
    }
    Ok(joined)
}

/// A part of a key as it is written.
fn part(what: &'static str, text: &str) -> Result<String, BadName> {
    if !(1..=MAX_PART_BYTES).contains(&text.len()) {
        return Err(BadName::new(what, text, "1 to 512 bytes"));
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Ok(out)
}

/// Builds names.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    /// In front of locks, sessions and rate limits.
    before: String,
}

impl Names {
    pub(super) fn new(options: &CachingOptions) -> Self {
        let prefix = options.prefix.clone();
        let before = if options.old_names { String::new() } else { format!("{prefix}:") };
        Self { prefix, before }
    }

    pub(super) fn value(&self, key: &Key) -> String {
        match &key.user {
            Some(user) => format!("{}:{}:user:{user}:{}", self.prefix, key.namespace.0, key.rest),
            None => format!("{}:{}:{}", self.prefix, key.namespace.0, key.rest),
        }
    }

    /// What every value of a namespace begins with.
    pub(super) fn values_of_all(&self, namespace: &Namespace) -> String {
        format!("{}:{}:", self.prefix, namespace.0)
    }

    /// What every value of a user in a namespace begins with.
    pub(super) fn values_of(&self, namespace: &Namespace, user: &str) -> Result<String, BadName> {
        Ok(format!("{}:{}:user:{}:", self.prefix, namespace.0, part("user", user)?))
    }

    pub(super) fn index(&self) -> String {
        format!("{}:index", self.prefix)
    }

    /// The index of a user in a namespace.
    pub(super) fn index_of(&self, namespace: &Namespace, user: &str) -> Result<String, BadName> {
        Ok(self.index_of_encoded(namespace, &part("user", user)?))
    }

    /// The index of a whole namespace.
    pub(super) fn index_of_all(&self, namespace: &Namespace) -> String {
        format!("{}:index:{}", self.prefix, namespace.0)
    }

    pub(super) fn index_of_encoded(&self, namespace: &Namespace, user: &str) -> String {
        format!("{}:index:{}:user:{user}", self.prefix, namespace.0)
    }

    /// In a lock's, session's or limit's name `:` separates parts, as in `portfolio:42`.
    pub(super) fn lock(&self, name: &str) -> Result<String, BadName> {
        Ok(format!("{}lock:{}", self.before, parts(name)?))
    }

    pub(super) fn session(&self, id: &str) -> Result<String, BadName> {
        Ok(format!("{}session:{}", self.before, part("session", id)?))
    }

    pub(super) fn window(&self, key: &str) -> Result<String, BadName> {
        // An IP address is written as the old application wrote it, dots and colons too.
        let plain = !key.is_empty() && key.len() <= 64 && key.parse::<std::net::IpAddr>().is_ok();
        let name = if plain { key.to_owned() } else { parts(key)? };
        Ok(format!("{}rate_limit:{name}", self.before))
    }

    pub(super) fn gcra(&self, key: &str) -> Result<String, BadName> {
        Ok(format!("{}:gcra", self.window(key)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: Result<Key, BadName>) -> String {
        let options = CachingOptions { prefix: "tradistry".into(), ..CachingOptions::default() };
        Names::new(&options).value(&key.unwrap())
    }

    /// `compat.md` §2: byte for byte for plain ids.
    #[test]
    fn keys_are_those_of_the_replaced_service() {
        assert_eq!(value(Key::user_data("123", "profile")), "tradistry:users:user:123:profile");
        assert_eq!(value(Key::of_user(Namespace::ai(), "123", "prompt:abc123")), "tradistry:ai:user:123:prompt:abc123");
        assert_eq!(value(Key::trading("123", "AAPL", "quote")), "tradistry:trading:user:123:AAPL:quote");
        assert_eq!(value(Key::new(Namespace::general(), "a:b")), "tradistry:general:a:b");
        assert!(value(Key::ai("1", "why?")).starts_with("tradistry:ai:user:1:prompt:"));
    }

    /// B10, B11: nothing in an id has a meaning.
    #[test]
    fn strange_ids_are_encoded_and_differ() {
        assert_eq!(value(Key::trading("1", "M&M", "quote")), "tradistry:trading:user:1:M%26M:quote");
        assert_eq!(value(Key::trading("1", "a:b", "q")), "tradistry:trading:user:1:a%3Ab:q");
        let ids = ["1:profile", "*", "[a]", "?", "{x}", "a b", "é", "\n", "%2A", "..", "user"];
        let mut seen = std::collections::BTreeSet::new();
        for id in ids {
            let key = value(Key::user_data(id, "p"));
            assert_eq!(key.split(':').count(), 5, "{key}");
            assert!(!key.contains(['*', '?', '[', '{', ' ', '\n']), "{key}");
            assert!(seen.insert(key));
        }
    }

    #[test]
    fn names_that_mean_another_thing_are_refused() {
        for key in ["user", "user:1:profile", "", "a::b", ":", &"x".repeat(513)] {
            assert!(Key::new(Namespace::users(), key).is_err(), "{key}");
        }
        for name in ["", "Users", "a:b", "index", "stats", "*", &"x".repeat(65)] {
            assert!(Namespace::new(name).is_err(), "{name}");
        }
        assert!(Key::user_data("", "profile").is_err());
    }

    #[test]
    fn old_names_have_no_prefix() {
        let old = Names::new(&CachingOptions { old_names: true, ..CachingOptions::default() });
        assert_eq!(old.lock("portfolio:42").unwrap(), "lock:portfolio:42");
        assert_eq!(old.session("abc").unwrap(), "session:abc");
        assert_eq!(old.window("10.0.0.1").unwrap(), "rate_limit:10.0.0.1");
        let ours = Names::new(&CachingOptions { prefix: "app:production".into(), ..CachingOptions::default() });
        assert_eq!(ours.lock("portfolio:42").unwrap(), "app:production:lock:portfolio:42");
    }
}
