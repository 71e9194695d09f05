//! Settings of the HTTP API.

use std::str::FromStr;
use std::time::Duration;

use windlass_api::keys::{KeyHash, Rate, hash_key};
use windlass_api::{Anonymous, ApiOptions, Auth};

use crate::settings::{Found, bad};

/// Settings of the HTTP API.
#[derive(Debug, Clone)]
pub(crate) struct ApiSettings {
    /// Keys that may do everything. `WINDLASS_API_KEYS`, separated by commas.
    keys: Vec<KeyHash>,
    /// What is answered on loopback without a key. `WINDLASS_LOOPBACK_ACCESS`: `none`, `read` or `all`;
    /// default `read` where everything is embedded, else `none`.
    loopback: Option<Access>,
    /// How often a key may ask that does not say itself. `WINDLASS_RATE_LIMIT`, such as `100/s`;
    /// default any number.
    rate: Option<Rate>,
    /// What stands before every path behind a proxy, as in `/jobs`. `WINDLASS_BASE_PATH`; default
    /// nothing.
    base_path: String,
    /// Sites whose pages may ask. `WINDLASS_CORS_ORIGINS`, separated by commas; default none.
    cors_origins: Vec<String>,
    /// How much is taken: the names and ranges of [`LIMITS`].
    limits: Vec<(&'static str, u64)>,
}

/// A limit: its variable, its range, and where its value goes, in bytes or ms or as it is.
type Limit = (&'static str, u64, u64, fn(&mut ApiOptions, u64));

/// The table of request limits. Every one is a setting; defaults are those of [`ApiOptions`].
const LIMITS: &[Limit] = &[
    ("WINDLASS_MAX_JSON_KB", 1, 1_048_576, |options, kb| options.json_bytes = bytes(kb, 1024)),
    ("WINDLASS_MAX_QUOTES_KB", 1, 1_048_576, |options, kb| options.quote_bytes = bytes(kb, 1024)),
    ("WINDLASS_MAX_BLOB_MB", 1, 65_536, |options, mb| options.blob_bytes = bytes(mb, 1024 * 1024)),
    ("WINDLASS_MAX_MULTIPART_MB", 1, 65_536, |options, mb| options.multipart_bytes = bytes(mb, 1024 * 1024)),
    ("WINDLASS_MAX_BODIES_MB", 1, 1_048_576, |options, mb| options.bodies_bytes = bytes(mb, 1024 * 1024)),
    ("WINDLASS_MAX_URL_BYTES", 256, 65_536, |options, n| options.url_bytes = bytes(n, 1)),
    ("WINDLASS_MAX_BATCH_JOBS", 1, 100_000, |options, n| options.batch_jobs = bytes(n, 1)),
    ("WINDLASS_MAX_EVENT_STREAMS", 1, 100_000, |options, n| options.event_streams = bytes(n, 1)),
    ("WINDLASS_MAX_CONNECTIONS", 1, 1_000_000, |options, n| options.connections = bytes(n, 1)),
    ("WINDLASS_BODY_TIMEOUT_MS", 100, 3_600_000, |options, ms| options.body_timeout = Duration::from_millis(ms)),
    ("WINDLASS_HEAD_TIMEOUT_MS", 100, 3_600_000, |options, ms| options.head_timeout = Duration::from_millis(ms)),
    ("WINDLASS_DRAIN_TIMEOUT_MS", 0, 3_600_000, |options, ms| options.drain_timeout = Duration::from_millis(ms)),
];

fn bytes(n: u64, unit: u64) -> usize {
    usize::try_from(n * unit).unwrap_or(usize::MAX)
}

#[derive(Debug, Clone, Copy)]
struct Access(Anonymous);

impl FromStr for Access {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self(Anonymous::Nothing)),
            "read" => Ok(Self(Anonymous::Reading)),
            "all" => Ok(Self(Anonymous::Everything)),
            _ => Err(()),
        }
    }
}

impl ApiSettings {
    pub(crate) fn read(found: &Found) -> anyhow::Result<Self> {
        Ok(Self {
            keys: keys(found)?,
            loopback: found.parse("WINDLASS_LOOPBACK_ACCESS", "none, read or all", |_| true)?,
            cors_origins: origins(found)?,
            limits: limits(found)?,
            rate: found.parse("WINDLASS_RATE_LIMIT", "1 to 1000000 per s, m, h or d, as in 100/s,", |_| true)?,
            base_path: found.parse("WINDLASS_BASE_PATH", "a path such as /jobs", is_base_path)?.unwrap_or_default(),
        })
    }

    /// What the API is told, at an address.
    pub(crate) fn options(&self, at: std::net::SocketAddr, embedded: bool) -> ApiOptions {
        let mut options = ApiOptions {
            auth: self.auth(at, embedded),
            rate: self.rate,
            cors_origins: self.cors_origins.clone(),
            base_path: self.base_path.clone(),
            ..ApiOptions::default()
        };
        for (name, n) in &self.limits {
            if let Some((.., set)) = LIMITS.iter().find(|(known, ..)| known == name) {
                set(&mut options, *n);
            }
        }
        // Room for the largest body is room that was asked for.
        let largest = options.json_bytes.max(options.quote_bytes).max(options.blob_bytes).max(options.multipart_bytes);
        if !self.limits.iter().any(|(name, _)| *name == "WINDLASS_MAX_BODIES_MB") {
            options.bodies_bytes = options.bodies_bytes.max(largest);
        }
        options
    }

    /// Who is let in at an address.
    fn auth(&self, at: std::net::SocketAddr, embedded: bool) -> Auth {
        let default = if embedded { Anonymous::Reading } else { Anonymous::Nothing };
        let loopback = self.loopback.map_or(default, |access| access.0);
        let anonymous = if at.ip().is_loopback() { loopback } else { Anonymous::Nothing };
        Auth { anonymous, fixed: self.keys.clone() }
    }
}

/// True for `/jobs` and `/ops/jobs`: no slash at the end, and nothing that would need escaping.
#[expect(clippy::ptr_arg, reason = "a filter of parsed values")]
fn is_base_path(path: &String) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(|part| word(part) && part != ".." && part != "."))
}

fn limits(found: &Found) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let mut all = Vec::new();
    for (name, least, most, _) in LIMITS {
        let allowed = format!("{least} to {most}");
        if let Some(n) = found.parse(name, &allowed, |n| (least..=most).contains(&n))? {
            all.push((*name, n));
        }
    }
    Ok(all)
}

fn origins(found: &Found) -> anyhow::Result<Vec<String>> {
    let name = "WINDLASS_CORS_ORIGINS";
    let Some(text) = found.text(name) else { return Ok(Vec::new()) };
    let origins: Vec<String> = text.split(',').map(|origin| origin.trim().to_owned()).collect();
    // An origin is a scheme and an authority, without a path (RFC 6454).
    let fits = |origin: &String| {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        origin == "*" || rest.is_some_and(|at| !at.is_empty() && at.bytes().all(|b| b.is_ascii_graphic() && b != b'/'))
    };
    if origins.iter().all(fits) { Ok(origins) } else { Err(bad(name, text, "* or https://host, separated by commas,")) }
}

fn keys(found: &Found) -> anyhow::Result<Vec<KeyHash>> {
    let Some(text) = found.text("WINDLASS_API_KEYS") else { return Ok(Vec::new()) };
    let keys: Vec<&str> = text.split(',').map(str::trim).collect();
    if keys.iter().any(|key| key.len() < 16) {
        return Err(bad("WINDLASS_API_KEYS", text, "keys of at least 16 characters, separated by commas,"));
    }
    Ok(keys.into_iter().map(hash_key).collect())
}
