//! Artifacts and results on Redis.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `wl:art:<sha256>` | string, PX | an artifact's bytes |
//! | `wl:res:<key>` | string, PX | a result as JSON |

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_jobs::millis;
use windlass_redis::{Link, Value, cmd};

use crate::{ARTIFACT_TTL, Artifacts, Digest, Error, Result, Results};

/// Artifacts on Redis.
#[derive(Debug, Clone)]
pub struct RedisArtifacts {
    link: Link,
    prefix: String,
}

impl RedisArtifacts {
    /// Artifacts on the Redis of `link`, under `{prefix}:art:`.
    #[must_use]
    pub fn new(link: Link, prefix: &str) -> Self {
        Self { link, prefix: prefix.to_owned() }
    }

    fn key(&self, digest: &Digest) -> String {
        format!("{}:art:{}", self.prefix, digest.hex())
    }
}

#[async_trait]
impl Artifacts for RedisArtifacts {
    async fn put(&self, bytes: Bytes) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        if self.touch(&digest).await? {
            return Ok(digest);
        }
        let mut call = cmd("SET");
        call.arg(self.key(&digest)).arg(&bytes[..]).arg("PX").arg(millis(ARTIFACT_TTL));
        self.link.call(&call).await.map_err(|source| Error::Redis { operation: "put artifact", source })?;
        Ok(digest)
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let mut call = cmd("GET");
        call.arg(self.key(digest));
        let reply = self.link.call(&call).await.map_err(|source| Error::Redis { operation: "get artifact", source })?;
        let bytes = match reply {
            Value::BulkString(bytes) => Bytes::from(bytes),
            _ => return Ok(None),
        };
        Ok((Digest::of(&bytes) == *digest).then_some(bytes))
    }

    async fn touch(&self, digest: &Digest) -> Result<bool> {
        let mut call = cmd("PEXPIRE");
        call.arg(self.key(digest)).arg(millis(ARTIFACT_TTL));
        let reply =
            self.link.call(&call).await.map_err(|source| Error::Redis { operation: "touch artifact", source })?;
        Ok(reply == Value::Int(1))
    }
}

/// Results on Redis.
#[derive(Debug, Clone)]
pub struct RedisResults {
    link: Link,
    prefix: String,
}

impl RedisResults {
    /// Results on the Redis of `link`, under `{prefix}:res:`.
    #[must_use]
    pub fn new(link: Link, prefix: &str) -> Self {
        Self { link, prefix: prefix.to_owned() }
    }
}

#[async_trait]
impl Results for RedisResults {
    async fn get(&self, key: &str) -> Result<Option<String>> {
        let mut call = cmd("GET");
        call.arg(format!("{}:res:{key}", self.prefix));
        match self.link.call(&call).await.map_err(|source| Error::Redis { operation: "get result", source })? {
            Value::BulkString(bytes) => Ok(String::from_utf8(bytes).ok()),
            _ => Ok(None),
        }
    }

    async fn put(&self, key: &str, json: &str, ttl: Duration) -> Result<()> {
        let mut call = cmd("SET");
        call.arg(format!("{}:res:{key}", self.prefix)).arg(json).arg("PX").arg(millis(ttl));
        self.link.call(&call).await.map(|_| ()).map_err(|source| Error::Redis { operation: "put result", source })
    }
}
