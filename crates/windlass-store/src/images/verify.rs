//! A recount of the images on Redis, by hand only: it scans.

use std::collections::HashMap;

use serde::Serialize;
use windlass_redis::{Value, cmd};

use super::model::{Cursor, ImageMeta};
use super::redis::RedisImages;
use crate::{Error, Result};

/// What a recount found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Images in the index.
    pub images: u64,
    /// Bytes of the blobs that images have.
    pub bytes: u64,
    /// Bytes as the counter has them.
    pub counted_bytes: i64,
    /// The sum of the times as it should be, in ms.
    pub created_sum: i64,
    /// Blobs that images name and that are not there.
    pub missing_blobs: u64,
    /// Blobs without an image; Redis removes them by itself.
    pub loose_blobs: u64,
    /// Hold counts that are wrong.
    pub wrong_refs: u64,
    /// Whether counters and hold counts were put right.
    pub repaired: bool,
}

impl Verified {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.missing_blobs == 0 && self.wrong_refs == 0 && i64::try_from(self.bytes) == Ok(self.counted_bytes)
    }
}

fn fail(source: windlass_redis::Error) -> Error {
    Error::Redis { operation: "recount images", source }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Int(n) => n.to_string(),
        _ => String::new(),
    }
}

impl RedisImages {
    /// Counts everything anew; with `repair` sets counters and hold counts right. Images kept
    /// meanwhile may be counted wrong: run it when little happens.
    ///
    /// # Errors
    /// [`Error::Redis`].
    pub async fn verify(&self, repair: bool) -> Result<Verified> {
        let (held, mut found) = self.held().await?;
        let there = self.blobs().await?;
        for digest in held.keys() {
            match there.get(digest) {
                Some(bytes) => found.bytes += bytes,
                None => found.missing_blobs += 1,
            }
        }
        found.loose_blobs = there.keys().filter(|digest| !held.contains_key(*digest)).count() as u64;
        let mut get = cmd("HGET");
        get.arg(self.keys.stat()).arg("bytes");
        found.counted_bytes = text(&self.link.call(&get).await.map_err(fail)?).parse().unwrap_or(0);
        let wrong = self.wrong_refs(&held).await?;
        found.wrong_refs = wrong.len() as u64;
        if repair && !found.is_right() {
            self.repair(&found, &held, &wrong).await?;
            found.repaired = true;
        }
        Ok(found)
    }

    /// How often images name each blob.
    async fn held(&self) -> Result<(HashMap<String, u64>, Verified)> {
        let (mut held, mut found) = (HashMap::new(), Verified::default());
        let mut after: Option<Cursor> = None;
        loop {
            let page = self.list(None, after.as_ref(), 500).await?;
            for ImageMeta { sha, thumb, created_at, .. } in &page.images {
                found.images += 1;
                found.created_sum += created_at.0;
                for digest in std::iter::once(sha).chain(thumb) {
                    *held.entry(digest.hex()).or_insert(0) += 1;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok((held, found));
            }
        }
    }

    /// The size of every blob there is.
    async fn blobs(&self) -> Result<HashMap<String, u64>> {
        let (mut blobs, mut cursor) = (HashMap::new(), "0".to_owned());
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(self.keys.blobs()).arg("COUNT").arg(1000);
            let Value::Array(reply) = self.link.call(&scan).await.map_err(fail)? else { return Ok(blobs) };
            cursor = reply.first().map(text).unwrap_or_default();
            if let Some(Value::Array(names)) = reply.get(1) {
                for name in names.iter().map(text) {
                    let mut size = cmd("STRLEN");
                    size.arg(&name);
                    let bytes = text(&self.link.call(&size).await.map_err(fail)?).parse().unwrap_or(0);
                    blobs.insert(name.rsplit(':').next().unwrap_or_default().to_owned(), bytes);
                }
            }
            if cursor == "0" || cursor.is_empty() {
                return Ok(blobs);
            }
        }
    }

    /// Blobs whose hold count is wrong.
    async fn wrong_refs(&self, held: &HashMap<String, u64>) -> Result<Vec<String>> {
        let mut all = cmd("HGETALL");
        all.arg(self.keys.refs());
        let values = match self.link.call(&all).await.map_err(fail)? {
            Value::Array(values) => values,
            Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
            _ => Vec::new(),
        };
        let pairs = values.chunks_exact(2);
        let refs: HashMap<String, u64> =
            pairs.map(|pair| (text(&pair[0]), text(&pair[1]).parse().unwrap_or(0))).collect();
        let names = refs.keys().chain(held.keys().filter(|digest| !refs.contains_key(*digest)));
        Ok(names.filter(|digest| refs.get(*digest) != held.get(*digest)).cloned().collect())
    }

    async fn repair(&self, found: &Verified, held: &HashMap<String, u64>, wrong: &[String]) -> Result<()> {
        for digest in wrong {
            let mut call = match held.get(digest) {
                Some(_) => cmd("HSET"),
                None => cmd("HDEL"),
            };
            call.arg(self.keys.refs()).arg(digest);
            if let Some(count) = held.get(digest) {
                call.arg(*count);
            }
            self.link.call(&call).await.map_err(fail)?;
        }
        let mut set = cmd("HSET");
        set.arg(self.keys.stat()).arg("bytes").arg(found.bytes).arg("created_sum").arg(found.created_sum);
        self.link.call(&set).await.map(drop).map_err(fail)
    }
}
