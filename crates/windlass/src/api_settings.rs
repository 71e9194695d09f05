//! Settings of the HTTP API.

use std::str::FromStr;

use windlass_api::keys::{KeyHash, Rate, hash_key};
use windlass_api::{Anonymous, Auth};

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
    pub(crate) rate: Option<Rate>,
    /// What stands before every path behind a proxy, as in `/jobs`. `WINDLASS_BASE_PATH`; default
    /// nothing.
    pub(crate) base_path: String,
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
            rate: found.parse("WINDLASS_RATE_LIMIT", "1 to 1000000 per s, m, h or d, as in 100/s,", |_| true)?,
            base_path: found.parse("WINDLASS_BASE_PATH", "a path such as /jobs", is_base_path)?.unwrap_or_default(),
        })
    }

    /// Who is let in at an address.
    pub(crate) fn auth(&self, at: std::net::SocketAddr, embedded: bool) -> Auth {
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

fn keys(found: &Found) -> anyhow::Result<Vec<KeyHash>> {
    let Some(text) = found.text("WINDLASS_API_KEYS") else { return Ok(Vec::new()) };
    let keys: Vec<&str> = text.split(',').map(str::trim).collect();
    if keys.iter().any(|key| key.len() < 16) {
        return Err(bad("WINDLASS_API_KEYS", text, "keys of at least 16 characters, separated by commas,"));
    }
    Ok(keys.into_iter().map(hash_key).collect())
}
