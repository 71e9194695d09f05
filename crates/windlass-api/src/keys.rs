//! API keys as they are kept: made, listed, rotated and revoked in the records.
//!
//! A key is `wl_<id>_<secret>`; of its secret only the SHA-256 is kept. It holds 256 random bits, so
//! a fast hash is enough. The key itself is said once, to whoever makes it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use windlass_jobs::{Timestamp, new_ulid};
use windlass_store::Quota;
use windlass_store::records::{Batch, Expect, Records, Write, Written};
use windlass_worker::schemars::JsonSchema;

use crate::scope::Grant;

/// The space of records that keys, their last use and the audit log live in.
pub const SPACE: &str = "api";
/// The set of keys: id → [`Key`].
pub const KEYS: &str = "keys";
/// The set of last uses: id → an instant.
pub const USES: &str = "uses";
/// The set of what the API needs once: whether the first key was made, the secret of cursors.
pub const SETTINGS: &str = "settings";
/// Most keys, the revoked ones included.
pub const MAX_KEYS: usize = 10_000;
/// How long the old secret of a rotated key is taken beside the new one.
pub const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest overlap.
pub const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a revoked key is still listed.
const KEEP_REVOKED: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How often a change that others keep overtaking is tried.
const TRIES: usize = 8;

/// The SHA-256 of a secret: what is kept of it.
///
/// *Shape as text*: 64 hex digits. `Debug` shows none of them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash(pub(crate) [u8; 32]);

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

impl TryFrom<String> for KeyHash {
    type Error = BadKeyHash;
    fn try_from(text: String) -> Result<Self, BadKeyHash> {
        text.parse()
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        hash.to_string()
    }
}

/// What is kept of a key as a caller sends it.
#[must_use]
pub fn hash_key(key: &str) -> KeyHash {
    KeyHash(Sha256::digest(key).into())
}

/// A new key of this id, to be shown once and kept nowhere.
///
/// *Shape*: `wl_<id>_<64 hex digits>`.
fn generate(id: &str) -> String {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).expect("the system gives random bytes");
    format!("wl_{id}_{}", hex::encode(secret))
}

/// The id in a key, if it has the form of one.
pub(crate) fn id_of(key: &[u8]) -> Option<&str> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix("wl_")?;
    rest.split_once('_').map(|(id, _)| id).filter(|id| !id.is_empty())
}

/// How often a key may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub struct Rate {
    /// Requests, 1 to 1,000,000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub limit: u32,
    /// In so many ms, 1 to 86,400,000.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub period_ms: u64,
}

impl Rate {
    /// The quota of a key with this rate.
    #[must_use]
    pub const fn quota(self) -> Quota {
        Quota::per(Duration::from_millis(self.period_ms), self.limit)
    }

    /// True when both numbers are in their ranges.
    #[must_use]
    pub fn is_in_range(self) -> bool {
        (1..=1_000_000).contains(&self.limit) && (1..=86_400_000).contains(&self.period_ms)
    }
}

/// Reads a rate that is an object: serde would also take its members as a list.
pub(crate) fn rate_of_object<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<Rate>, D::Error> {
    let members = Option::<serde_json::Map<String, serde_json::Value>>::deserialize(reader)?;
    let read = |members| serde_json::from_value(serde_json::Value::Object(members)).map_err(serde::de::Error::custom);
    members.map(read).transpose()
}

/// `100/s`, `1000/m`, `5000/h`, `100000/d`.
impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("{text:?} is no rate; 1 to 1000000 per s, m, h or d is allowed, as in 100/s");
        let (limit, unit) = text.split_once('/').ok_or_else(fail)?;
        let period_ms = match unit.trim() {
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(fail()),
        };
        let rate = Self { limit: limit.trim().parse().map_err(|_| fail())?, period_ms };
        if rate.is_in_range() { Ok(rate) } else { Err(fail()) }
    }
}

/// One of a key's secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub(crate) hash: KeyHash,
    /// Since when it is taken.
    pub created_at: Timestamp,
    /// Until when; `None` for as long as the key lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// 26 letters and digits, part of the key.
    pub id: String,
    /// For people, 1 to 100 characters.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Grant>,
    /// Whose it is: it then sees nothing else. `[A-Za-z0-9_-]{1,64}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// How often it may ask; `None`: as the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// The newest first; two while it is rotated.
    pub secrets: Vec<Secret>,
}

impl Key {
    /// True while it is neither revoked nor at its end.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// The secrets that are taken now.
    pub fn live_secrets(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        let live = self.is_live(now);
        self.secrets.iter().filter(move |secret| live && secret.expires_at.is_none_or(|end| now < end))
    }

    /// The key as HTTP and `--json` show it, without anything of its secrets.
    #[must_use]
    pub fn to_json(&self, now: Timestamp, last_used_at: Option<Timestamp>) -> serde_json::Value {
        let status = match self.revoked_at {
            Some(_) => "revoked",
            None if self.is_live(now) => "live",
            None => "expired",
        };
        serde_json::json!({
            "id": self.id,
            "name": self.name,
            "status": status,
            "scopes": self.scopes,
            "tenant": self.tenant,
            "rate": self.rate,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
            "last_used_at": last_used_at,
            "secrets": self.live_secrets(now).count(),
        })
    }
}

/// What a new key is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewKey {
    /// As [`Key::name`].
    pub name: String,
    /// As [`Key::scopes`]; at least one.
    pub scopes: Vec<Grant>,
    /// As [`Key::tenant`].
    pub tenant: Option<String>,
    /// As [`Key::rate`].
    pub rate: Option<Rate>,
    /// When it ends by itself; default never.
    pub expires_at: Option<Timestamp>,
}

/// A key that could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something about it is not allowed.
    #[error("{field}: {allowed} is allowed")]
    Refused {
        /// What.
        field: &'static str,
        /// What would be.
        allowed: &'static str,
    },
    /// There is none of this id, or it is revoked.
    #[error("there is no live key of this id")]
    NotFound,
    /// There are [`MAX_KEYS`].
    #[error("there are {MAX_KEYS} keys; revoke some, they are forgotten after 90 days")]
    TooMany,
    /// Others changed it all the time.
    #[error("the keys are being changed by others; try again")]
    Busy,
    /// The store failed.
    #[error("the store of keys")]
    Store(#[source] windlass_store::Error),
}

fn store(error: windlass_store::Error) -> Error {
    Error::Store(error)
}

/// The keys of an installation.
#[derive(Clone)]
pub struct Book {
    records: Arc<dyn Records>,
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Book(keys)")
    }
}

impl Book {
    /// The keys in these records.
    #[must_use]
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records }
    }

    /// All keys, the oldest first, with when they were last used.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn all(&self) -> Result<Vec<(Key, Option<Timestamp>)>, Error> {
        let keys = self.records.all(SPACE, KEYS).await.map_err(store)?;
        let uses = self.records.all(SPACE, USES).await.map_err(store)?;
        let used = |id: &str| uses.iter().find(|record| record.name == id).and_then(|r| read_use(&r.json));
        let keys = keys.iter().filter_map(|record| read(&record.json));
        Ok(keys.map(|key| (key.clone(), used(&key.id))).collect())
    }

    /// Makes a key and answers it with what was kept: the only time it is said.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create(&self, new: NewKey) -> Result<(String, Key), Error> {
        check(&new)?;
        let now = self.records.meta(SPACE).await.map_err(store)?.now;
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::Refused { field: "expires_at", allowed: "an instant to come" });
        }
        let mut writes = self.make_room(now).await?;
        let (text, key) = make(new, now);
        writes.push(put(&key, Expect::Absent));
        match self.records.write(SPACE, &Batch { notify: true, writes, ..Batch::default() }).await.map_err(store)? {
            Written::Done(_) => Ok((text, key)),
            Written::Fenced | Written::Conflict(_) => Err(Error::Busy),
        }
    }

    /// Makes the key that may do everything, unless this installation has had it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn create_first(&self) -> Result<Option<String>, Error> {
        let now = self.records.meta(SPACE).await.map_err(store)?.now;
        let (text, key) =
            make(NewKey { name: "first".to_owned(), scopes: vec![Grant::all()], ..NewKey::default() }, now);
        let (name, json) = ("first-key".to_owned(), format!("\"{}\"", key.id));
        let marker = Write::Put { set: SETTINGS, name, json, expect: Expect::Absent };
        let writes = vec![marker, put(&key, Expect::Absent)];
        let written = self.records.write(SPACE, &Batch { notify: true, writes, ..Batch::default() }).await;
        Ok(matches!(written.map_err(store)?, Written::Done(_)).then_some(text))
    }

    /// Gives a key a second secret; the one before is taken for `overlap` more, an older one no
    /// longer. Answers the new key, the only time it is said.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn rotate(&self, id: &str, overlap: Duration) -> Result<(String, Key), Error> {
        if overlap > MAX_OVERLAP {
            return Err(Error::Refused { field: "overlap", allowed: "0 to 30 days" });
        }
        let text = generate(id);
        let hash = hash_key(&text);
        let key = self
            .change(id, |key, now| {
                key.secrets.truncate(1);
                for old in &mut key.secrets {
                    let end = now.plus(overlap);
                    old.expires_at = Some(old.expires_at.map_or(end, |before| before.min(end)));
                }
                key.secrets.insert(0, Secret { hash, created_at: now, expires_at: None });
            })
            .await?;
        Ok((text, key))
    }

    /// Ends a key at once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke(&self, id: &str) -> Result<Key, Error> {
        self.change(id, |key, now| {
            key.revoked_at = Some(now);
            key.secrets.clear();
        })
        .await
    }

    async fn change(&self, id: &str, how: impl Fn(&mut Key, Timestamp)) -> Result<Key, Error> {
        if !is_id(id) {
            return Err(Error::NotFound);
        }
        for _ in 0..TRIES {
            let now = self.records.meta(SPACE).await.map_err(store)?.now;
            let record = self.records.get(SPACE, KEYS, id).await.map_err(store)?.ok_or(Error::NotFound)?;
            let mut key = read(&record.json).filter(|key| key.is_live(now)).ok_or(Error::NotFound)?;
            how(&mut key, now);
            let writes = vec![put(&key, Expect::Rev(record.rev))];
            let batch = Batch { notify: true, writes, ..Batch::default() };
            if let Written::Done(_) = self.records.write(SPACE, &batch).await.map_err(store)? {
                return Ok(key);
            }
        }
        Err(Error::Busy)
    }

    /// Refuses one more than [`MAX_KEYS`]; what forgets keys revoked long ago.
    async fn make_room(&self, now: Timestamp) -> Result<Vec<Write>, Error> {
        let keys = self.records.all(SPACE, KEYS).await.map_err(store)?;
        let is_old = |key: &Key| key.revoked_at.is_some_and(|at| now.since(at) > KEEP_REVOKED);
        let old = keys.iter().filter(|record| read(&record.json).as_ref().is_some_and(is_old));
        let remove = |set, name: &String| Write::Remove { set, name: name.clone(), expect: Expect::Any };
        let forgotten: Vec<Write> =
            old.take(100).flat_map(|record| [remove(KEYS, &record.name), remove(USES, &record.name)]).collect();
        if keys.len() - forgotten.len() / 2 >= MAX_KEYS {
            return Err(Error::TooMany);
        }
        Ok(forgotten)
    }
}

fn make(new: NewKey, now: Timestamp) -> (String, Key) {
    let id = new_ulid().to_string().to_ascii_lowercase();
    let text = generate(&id);
    let NewKey { name, scopes, tenant, rate, expires_at } = new;
    let secrets = vec![Secret { hash: hash_key(&text), created_at: now, expires_at: None }];
    (text, Key { id, name, scopes, tenant, rate, created_at: now, expires_at, revoked_at: None, secrets })
}

fn check(new: &NewKey) -> Result<(), Error> {
    let refuse = |field, allowed| Err(Error::Refused { field, allowed });
    let printable = |name: &str| !name.chars().any(char::is_control);
    if !(1..=100).contains(&new.name.chars().count()) || !printable(&new.name) {
        return refuse("name", "1 to 100 printable characters");
    }
    if new.scopes.is_empty() || new.scopes.len() > 100 {
        return refuse("scopes", "1 to 100 scopes");
    }
    if new.tenant.as_deref().is_some_and(|tenant| !is_tenant(tenant)) {
        return refuse("tenant", "1 to 64 of A-Z a-z 0-9 _ -");
    }
    if new.rate.is_some_and(|rate| !rate.is_in_range()) {
        return refuse("rate", "1 to 1000000 in 1 to 86400000 ms");
    }
    Ok(())
}

/// True for a name that a key can be bound to.
pub(crate) fn is_tenant(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn is_id(id: &str) -> bool {
    id.len() == 26 && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn put(key: &Key, expect: Expect) -> Write {
    let json = serde_json::to_string(key).unwrap_or_default();
    Write::Put { set: KEYS, name: key.id.clone(), json, expect }
}

/// A key as it is kept; one that cannot be read lets nobody in.
pub(crate) fn read(json: &str) -> Option<Key> {
    serde_json::from_str(json).inspect_err(|error| tracing::error!(%error, "an API key cannot be read")).ok()
}

fn read_use(json: &str) -> Option<Timestamp> {
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_differ_and_their_hash_is_readable_back() {
        let (a, b) = (generate("abc"), generate("abc"));
        assert_ne!(a, b);
        let parts: Vec<&str> = a.split('_').collect();
        assert_eq!((parts[0], parts[1], parts[2].len()), ("wl", "abc", 64));
        assert_eq!(id_of(a.as_bytes()), Some("abc"));
        let hash = hash_key(&a);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(format!("{hash:?}"), "KeyHash(***)");
        assert_eq!(a.parse::<KeyHash>(), Err(BadKeyHash));
        for bad in [&b"wl__x"[..], b"wl_", b"abc", b"", b"wl_\xff_x"] {
            assert_eq!(id_of(bad), None);
        }
    }

    #[test]
    fn rates_are_read() {
        let check = |text: &str, expected: Option<(u32, u64)>| {
            assert_eq!(text.parse::<Rate>().ok().map(|r| (r.limit, r.period_ms)), expected, "{text}");
        };
        check("100/s", Some((100, 1_000)));
        check("5/d", Some((5, 86_400_000)));
        for bad in ["", "100", "0/s", "1000001/s", "5/week", "-1/s"] {
            check(bad, None);
        }
    }
}
