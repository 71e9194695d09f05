//! Who is logged in.

use std::time::Duration;

use serde_json::Value as Json;
use windlass_jobs::{millis, new_ulid};
use windlass_redis::{Value, cmd};

use super::cache::BadValue;
use super::names::{BadName, Names};
use super::side::{self, Answer, Side};
use super::{MAX_TTL, MAX_VALUE_BYTES};

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// What its owner put there.
    pub data: Json,
    /// What is left of its time.
    pub ttl: Duration,
}

/// A session that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Its id cannot be one.
    #[error(transparent)]
    Name(#[from] BadName),
    /// Its data cannot be kept.
    #[error(transparent)]
    Data(#[from] BadValue),
}

/// Sessions with a time. What was put there while Redis was away is there when it is back.
#[derive(Debug, Clone)]
pub struct Sessions {
    side: Side,
    names: Names,
}

impl Sessions {
    /// How long a session lasts unless its caller says otherwise (`compat.md` §3).
    pub const TTL: Duration = Duration::from_secs(3600);

    pub(super) const fn new(side: Side, names: Names) -> Self {
        Self { side, names }
    }

    /// An id for a session, which nobody guesses.
    #[must_use]
    pub fn new_id() -> String {
        format!("{}{}", new_ulid(), new_ulid())
    }

    /// Begins a session; its id, which nobody guesses.
    ///
    /// # Errors
    /// [`SessionError::Data`].
    pub async fn create(&self, data: &Json, ttl: Duration) -> Result<Answer<String>, SessionError> {
        let id = Self::new_id();
        Ok(self.put(&id, data, ttl).await?.map(|()| id))
    }

    /// Keeps a session's data for `ttl` from now.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn put(&self, id: &str, data: &Json, ttl: Duration) -> Result<Answer<()>, SessionError> {
        let (key, json) = (self.names.session(id)?, data.to_string());
        if json.len() > MAX_VALUE_BYTES {
            return Err(BadValue::TooLarge(json.len()).into());
        }
        let ttl = ttl.clamp(Duration::from_millis(1), MAX_TTL);
        let mut set = cmd("SET");
        set.arg(&key).arg(&json).arg("PX").arg(millis(ttl));
        let asked = self.side.ask(async |link| link.call(&set).await).await;
        let degraded = asked.is_none() && self.side.is_on_redis();
        if degraded {
            self.side.remember(&key, Some((json.clone(), ttl)));
        }
        // Here as well, for the time when Redis is away.
        self.side.memory().set(&key, json, ttl);
        Ok(Answer { value: (), degraded })
    }

    /// A session; `None` when it is not there. While Redis is away, those that this process has seen.
    ///
    /// # Errors
    /// [`BadName`].
    pub async fn get(&self, id: &str) -> Result<Answer<Option<Session>>, BadName> {
        let key = self.names.session(id)?;
        let (mut get, mut left) = (cmd("GET"), cmd("PTTL"));
        get.arg(&key);
        left.arg(&key);
        let asked = self.side.ask(async |link| {
            let (json, left) = tokio::join!(link.call(&get), link.call(&left));
            Ok((json?, left?))
        });
        let (found, degraded) = match asked.await {
            Some((json, left)) => {
                let ttl = match left {
                    Value::Int(ms) => u64::try_from(ms).map_or(MAX_TTL, Duration::from_millis),
                    _ => MAX_TTL,
                };
                let found = side::text(json).map(|json| (json, ttl));
                match &found {
                    Some((json, ttl)) => self.side.memory().set(&key, json.clone(), *ttl),
                    None => drop(self.side.memory().remove(&key)),
                }
                (found, false)
            }
            None => (self.side.memory().get(&key), self.side.is_on_redis()),
        };
        // What another application put there may be no JSON: then it is a text.
        let session = |(json, ttl): (String, Duration)| Session {
            data: serde_json::from_str(&json).unwrap_or(Json::String(json)),
            ttl,
        };
        Ok(Answer { value: found.map(session), degraded })
    }

    /// Makes a session last for `ttl` from now; false when it is not there.
    ///
    /// # Errors
    /// [`BadName`].
    pub async fn touch(&self, id: &str, ttl: Duration) -> Result<Answer<bool>, BadName> {
        let found = self.get(id).await?;
        let Some(session) = found.value else { return Ok(Answer { value: false, degraded: found.degraded }) };
        match self.put(id, &session.data, ttl).await {
            Ok(put) => Ok(put.map(|()| true)),
            Err(SessionError::Name(bad)) => Err(bad),
            Err(SessionError::Data(_)) => Ok(Answer { value: false, degraded: found.degraded }),
        }
    }

    /// Ends a session; whether it was there.
    ///
    /// # Errors
    /// [`BadName`].
    pub async fn delete(&self, id: &str) -> Result<Answer<bool>, BadName> {
        let key = self.names.session(id)?;
        let here = self.side.memory().remove(&key);
        let mut unlink = cmd("UNLINK");
        unlink.arg(&key);
        if let Some(gone) = self.side.ask(async |link| link.call(&unlink).await).await {
            return Ok(Answer { value: gone == Value::Int(1), degraded: false });
        }
        self.side.remember(&key, None);
        Ok(Answer { value: here, degraded: self.side.is_on_redis() })
    }
}
