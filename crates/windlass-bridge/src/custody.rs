//! Jobs on their way: taken from a source, not yet ended. What is known of them lies beside the
//! source, so that whichever bridge comes next goes on.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass_jobs::{JobId, Timestamp};
use windlass_redis::{Cmd, Error, FromRedisValue as _, Link, Script, cmd};

/// Refused jobs that are kept to be looked at.
const NOTES: usize = 10_000;

static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/settle.lua")));
static CLOSE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/close.lua")));

/// The script of a turn, from what takes jobs out of a source.
pub(crate) fn turn_script(take: &str) -> Script {
    Script::new([include_str!("scripts/head.lua"), take, include_str!("scripts/due.lua")].concat())
}

/// The way to one source, and the bridge's keys beside it.
pub(crate) struct Custody {
    pub(crate) link: Link,
    /// What the bridge's keys begin with.
    pub(crate) base: String,
}

/// What a job of a source became.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Became {
    /// The job.
    #[serde(rename = "w")]
    pub(crate) id: JobId,
    /// Its id at the source.
    #[serde(rename = "f")]
    pub(crate) foreign: String,
    /// When it was enqueued, or when it may run if that is later: its age begins there. By the source's
    /// clock, in ms.
    #[serde(rename = "t")]
    pub(crate) at: i64,
    /// What was told last.
    #[serde(rename = "s", default)]
    pub(crate) told: String,
    /// Its group at a Celery client.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// Nobody wants to know what becomes of it.
    #[serde(rename = "q", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_quiet: bool,
}

/// A job that was refused, as it is kept for people: the newest 10,000 of each source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its id at the source, if it has one.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// What was found, as text.
    pub message: String,
}

/// When a job in custody is looked at next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Among those that are looked at often.
    Soon(Duration),
    /// Among those that may not run for a while.
    Later(Duration),
}

/// One job that is to be sent.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its member in the custody.
    pub(crate) member: Vec<u8>,
    /// What was held for sending it.
    pub(crate) held: Vec<u8>,
    /// What the source adds.
    pub(crate) more: Vec<Option<Vec<u8>>>,
}

/// What a turn found.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The clock of the source's Redis, in ms.
    pub(crate) now: i64,
    /// Jobs in custody that are looked at often.
    pub(crate) open: u64,
    /// Those that may not run for a while.
    pub(crate) later: u64,
    /// Jobs that wait in the source.
    pub(crate) waiting: u64,
    /// More may be due.
    pub(crate) is_full: bool,
    /// What is to be sent.
    pub(crate) unsent: Vec<Row>,
    /// What is to be looked at, by member.
    pub(crate) sent: Vec<(Vec<u8>, Became)>,
    /// Members of which nobody can read what they became: sent again they would run twice.
    pub(crate) unreadable: Vec<(Vec<u8>, serde_json::Error)>,
}

type Reply = (i64, u64, u64, u64, bool, Vec<Vec<Option<Vec<u8>>>>);

impl Custody {
    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.base)
    }

    /// The start of a turn's call; the source's own arguments follow.
    pub(crate) fn begin(&self, script: &Script, key: &str, take: usize, look: usize, hold: Duration) -> Cmd {
        let mut call = script.on(key);
        call.arg(take).arg(look).arg(windlass_jobs::millis(hold)).arg(&self.base);
        call
    }

    pub(crate) async fn turn(&self, script: &Script, call: &Cmd) -> Result<Turn, Error> {
        let reply = script.run(&self.link, call).await?;
        let shown = self.link.shown();
        let (now, open, later, waiting, is_full, rows) = windlass_redis::from_redis_value::<Reply>(reply)
            .map_err(|_| Error::timeout(shown, "the reply of a turn cannot be read"))?;
        let (unsent, sent, unreadable) = Default::default();
        let mut turn = Turn { now, open, later, waiting, is_full, unsent, sent, unreadable };
        for row in rows {
            let mut fields = row.into_iter();
            let Some(member) = fields.next().flatten() else { continue };
            match fields.next().flatten().map(|json| serde_json::from_slice(&json)) {
                Some(Ok(became)) => turn.sent.push((member, became)),
                Some(Err(error)) => turn.unreadable.push((member, error)),
                None => {
                    let held = fields.next().flatten().unwrap_or_default();
                    turn.unsent.push(Row { member, held, more: fields.collect() });
                }
            }
        }
        Ok(turn)
    }

    /// Says when jobs are looked at next, and what they became if that is news.
    pub(crate) async fn settle(&self, jobs: &[(Vec<u8>, Next, Option<Became>)]) -> Result<(), Error> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut call = SETTLE.on(&self.key("open"));
        call.arg(&self.base);
        for (member, next, became) in jobs {
            let (delay, set) = match next {
                Next::Soon(delay) => (delay, "open"),
                Next::Later(delay) => (delay, "later"),
            };
            let became = became.as_ref().and_then(|became| serde_json::to_string(became).ok()).unwrap_or_default();
            call.arg(member.as_slice()).arg(windlass_jobs::millis(*delay)).arg(set).arg(became);
        }
        SETTLE.run(&self.link, &call).await.map(drop)
    }

    /// Lets jobs go.
    pub(crate) async fn close(&self, jobs: &[(Vec<u8>, Option<Note>)]) -> Result<(), Error> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut call = CLOSE.on(&self.key("open"));
        call.arg(&self.base).arg(NOTES);
        for (member, note) in jobs {
            let note = note.as_ref().and_then(|note| serde_json::to_string(note).ok()).unwrap_or_default();
            call.arg(member.as_slice()).arg(note);
        }
        CLOSE.run(&self.link, &call).await.map(drop)
    }

    /// The newest refused jobs, newest first.
    pub(crate) async fn notes(&self, most: usize) -> Result<Vec<Note>, Error> {
        let mut range = cmd("LRANGE");
        range.arg(self.key("refused")).arg(0).arg(most.saturating_sub(1));
        let texts = Vec::<String>::from_redis_value(self.link.call(&range).await?).unwrap_or_default();
        Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }
}
