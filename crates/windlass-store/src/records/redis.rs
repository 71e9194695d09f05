//! Records on Redis.
//!
//! | key | type | holds | bound |
//! |---|---|---|---|
//! | `wl:{rec:<space>}:meta` | hash | `generation`, `version` | two fields |
//! | `wl:{rec:<space>}:set:<set>` | hash | name → `<rev> <json>` | its owner's: schedules 10,000 |
//! | `wl:{rec:<space>}:log:<log>` | list | entries, newest first | `keep` of each append |
//! | `wl:{rec:<space>}:lease` | hash | `holder`, `epoch`, `until` | three fields |
//!
//! No queue is called `rec:…`, so that these keys are nobody else's. None has a TTL: records are
//! to be kept.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use windlass_jobs::{Timestamp, millis, new_ulid};
use windlass_redis::{FromRedisValue as _, Link, Script, Value, cmd, from_redis_value};

use super::{Batch, Expect, Fence, Lead, Meta, Record, Records, Write, Written, check};
use crate::{Error, Result};

/// KEYS: the space. ARGV: holder or `""`, epoch, `1` to notify, generation to set or `""`, a new
/// generation; then five for each write: what, place, name, value, extra.
/// Reply: `{"done", version}`, `{"fenced"}` or `{"conflict", index}`. Atomic as a whole; N writes
/// cost N calls and one more for each that expects something, and one for each entry of a log that is
/// extended.
static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local base, meta = KEYS[1], KEYS[1] .. ':meta'
redis.call('HDEL', meta, '-') -- memory never refuses it, nor what follows
if ARGV[1] ~= '' then
  local lease = redis.call('HMGET', base .. ':lease', 'holder', 'epoch')
  if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return {'fenced', 0} end
end
if ARGV[4] ~= '' and redis.call('HGET', meta, 'generation') == ARGV[4] then return {'conflict', 0} end
for i = 6, #ARGV, 5 do
  local extra = ARGV[i + 4]
  if (ARGV[i] == 'put' or ARGV[i] == 'del') and extra ~= '*' then
    local old = redis.call('HGET', base .. ':set:' .. ARGV[i + 1], ARGV[i + 2])
    local rev = old and string.match(old, '^%d+') or '-'
    if rev ~= extra then return {'conflict', (i - 6) / 5} end
  end
end
if ARGV[4] ~= '' then
  redis.call('HSET', meta, 'generation', ARGV[4])
elseif redis.call('HEXISTS', meta, 'generation') == 0 then
  redis.call('HSET', meta, 'generation', ARGV[5])
end
local version
if ARGV[3] == '1' then
  version = redis.call('HINCRBY', meta, 'version', 1)
else
  version = tonumber(redis.call('HGET', meta, 'version') or '0')
end
for i = 6, #ARGV, 5 do
  local what, place, name, value, extra = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  if what == 'put' then
    redis.call('HSET', base .. ':set:' .. place, name, version .. ' ' .. value)
  elseif what == 'new' then
    redis.call('HSETNX', base .. ':set:' .. place, name, version .. ' ' .. value)
  elseif what == 'del' then
    redis.call('HDEL', base .. ':set:' .. place, name)
  elseif what == 'log' then
    redis.call('LPUSH', base .. ':log:' .. name, value)
    redis.call('LTRIM', base .. ':log:' .. name, 0, tonumber(extra) - 1)
  elseif what == 'old' then
    for _, entry in ipairs(cjson.decode(value)) do redis.call('RPUSH', base .. ':log:' .. name, entry) end
  elseif what == 'drop' then
    redis.call('DEL', base .. ':log:' .. name)
  end
end
return {'done', version}",
    )
});

/// KEYS: the space. ARGV: who, how long in ms; 0 only looks.
/// Reply: `{1 if who leads, holder, epoch, until, now, generation, version}`. Constant cost.
static LEAD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local lease, who, ttl = KEYS[1] .. ':lease', ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local old = redis.call('HMGET', lease, 'holder', 'epoch', 'until')
local holder, epoch, ends = old[1] or '', tonumber(old[2] or '0'), tonumber(old[3] or '0')
if ttl > 0 then
  redis.call('HDEL', lease, '-') -- memory never refuses it, nor what follows
  if holder == who and ends >= now then
    ends = now + ttl
  elseif ends < now then
    holder, epoch, ends = who, epoch + 1, now + ttl
  elseif ends > now + ttl then
    ends = now + ttl -- the clock was put back
  end
  redis.call('HSET', lease, 'holder', holder, 'epoch', epoch, 'until', ends)
end
local meta = redis.call('HMGET', KEYS[1] .. ':meta', 'generation', 'version')
local leads = (holder == who and ends >= now) and 1 or 0
return {leads, holder, tostring(epoch), tostring(ends), tostring(now), meta[1] or '', meta[2] or '0'}",
    )
});

/// KEYS: the space. ARGV: holder, epoch. Ends the lease if it is held by them.
static RESIGN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local lease = KEYS[1] .. ':lease'
redis.call('HDEL', lease, '-')
local old = redis.call('HMGET', lease, 'holder', 'epoch')
if old[1] == ARGV[1] and old[2] == ARGV[2] then redis.call('HSET', lease, 'until', 0) end
return 1",
    )
});

/// Fields read in one step of a walk over a set.
const STEP: usize = 500;

/// Records on Redis.
#[derive(Debug, Clone)]
pub struct RedisRecords {
    link: Link,
    prefix: String,
}

impl RedisRecords {
    /// Records on the Redis of `link`, under `{prefix}:{rec:…}:`.
    #[must_use]
    pub fn new(link: Link, prefix: &str) -> Self {
        Self { link, prefix: prefix.to_owned() }
    }

    fn base(&self, space: &str) -> String {
        format!("{}:{{rec:{space}}}", self.prefix)
    }
}

fn failed(operation: &'static str) -> impl Fn(windlass_redis::Error) -> Error {
    move |source| Error::Redis { operation, source }
}

fn odd(operation: &'static str, what: impl std::fmt::Debug) -> Error {
    let mut detail = format!("{what:?}");
    detail.truncate(detail.floor_char_boundary(200));
    Error::Unexpected { operation, detail }
}

#[async_trait]
impl Records for RedisRecords {
    async fn meta(&self, space: &'static str) -> Result<Meta> {
        Ok(self.lead(space, "", Duration::ZERO).await?.meta)
    }

    async fn all(&self, space: &'static str, set: &str) -> Result<Vec<Record>> {
        let key = format!("{}:set:{set}", self.base(space));
        let mut found = std::collections::BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut call = cmd("HSCAN");
            call.arg(&key).arg(&cursor).arg("COUNT").arg(STEP);
            let reply = self.link.call(&call).await.map_err(failed("read records"))?;
            let (next, fields): (String, Vec<String>) = from_redis_value(reply).map_err(|e| odd("read records", e))?;
            for pair in fields.chunks_exact(2) {
                let record = read_record(&pair[0], &pair[1]).ok_or_else(|| odd("read records", pair))?;
                found.insert(pair[0].clone(), record);
            }
            if next == "0" {
                return Ok(found.into_values().collect());
            }
            cursor = next;
        }
    }

    async fn get(&self, space: &'static str, set: &str, name: &str) -> Result<Option<Record>> {
        let mut call = cmd("HGET");
        call.arg(format!("{}:set:{set}", self.base(space))).arg(name);
        match self.link.call(&call).await.map_err(failed("read record"))? {
            Value::Nil => Ok(None),
            reply => {
                let text = String::from_redis_value(reply).map_err(|e| odd("read record", e))?;
                read_record(name, &text).map(Some).ok_or_else(|| odd("read record", text))
            }
        }
    }

    async fn write(&self, space: &'static str, batch: &Batch) -> Result<Written> {
        check(batch)?;
        let mut call = WRITE.on(&self.base(space));
        match &batch.fence {
            Some(fence) => call.arg(&fence.holder).arg(fence.epoch),
            None => call.arg("").arg(0),
        };
        call.arg(u8::from(batch.notify)).arg(batch.generation.as_deref().unwrap_or("")).arg(new_ulid().to_string());
        for write in &batch.writes {
            match write {
                Write::Put { set, name, json, expect } => {
                    call.arg("put").arg(*set).arg(name).arg(json).arg(expected(*expect));
                }
                Write::Seed { set, name, json } => {
                    call.arg("new").arg(set).arg(name).arg(json).arg("");
                }
                Write::Remove { set, name, expect } => {
                    call.arg("del").arg(*set).arg(name).arg("").arg(expected(*expect));
                }
                Write::Append { log, json, keep } => {
                    call.arg("log").arg("").arg(log).arg(json).arg(keep.max(&1));
                }
                Write::Extend { log, entries } => {
                    let entries = serde_json::to_string(entries).unwrap_or_default();
                    call.arg("old").arg("").arg(log).arg(entries).arg("");
                }
                Write::DropLog { log } => {
                    call.arg("drop").arg("").arg(log).arg("").arg("");
                }
            }
        }
        let reply = WRITE.run(&self.link, &call).await.map_err(failed("write records"))?;
        let (word, number): (String, u64) = from_redis_value(reply).map_err(|e| odd("write records", e))?;
        match word.as_str() {
            "done" => Ok(Written::Done(number)),
            "fenced" => Ok(Written::Fenced),
            "conflict" => Ok(Written::Conflict(usize::try_from(number).unwrap_or(0))),
            _ => Err(odd("write records", word)),
        }
    }

    async fn log(&self, space: &'static str, log: &str, from: usize, limit: usize) -> Result<Vec<String>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut call = cmd("LRANGE");
        call.arg(format!("{}:log:{log}", self.base(space))).arg(from).arg(from.saturating_add(limit) - 1);
        let reply = self.link.call(&call).await.map_err(failed("read log"))?;
        from_redis_value(reply).map_err(|e| odd("read log", e))
    }

    async fn lead(&self, space: &'static str, who: &str, ttl: Duration) -> Result<Lead> {
        let mut call = LEAD.on(&self.base(space));
        call.arg(who).arg(millis(ttl));
        let reply = LEAD.run(&self.link, &call).await.map_err(failed("lead"))?;
        let (leads, holder, epoch, until, now, generation, version): (bool, String, u64, i64, i64, String, u64) =
            from_redis_value(reply).map_err(|e| odd("lead", e))?;
        let leads = leads && !who.is_empty();
        let generation = Some(generation).filter(|text| !text.is_empty());
        Ok(Lead {
            fence: leads.then(|| Fence { holder: who.to_owned(), epoch }),
            holder: if until >= now { holder } else { String::new() },
            until: Timestamp(until),
            meta: Meta { now: Timestamp(now), generation, version },
        })
    }

    async fn resign(&self, space: &'static str, fence: &Fence) -> Result<()> {
        let mut call = RESIGN.on(&self.base(space));
        call.arg(&fence.holder).arg(fence.epoch);
        RESIGN.run(&self.link, &call).await.map(|_| ()).map_err(failed("resign"))
    }
}

fn expected(expect: Expect) -> String {
    match expect {
        Expect::Any => "*".to_owned(),
        Expect::Absent => "-".to_owned(),
        Expect::Rev(rev) => rev.to_string(),
    }
}

fn read_record(name: &str, text: &str) -> Option<Record> {
    let (rev, json) = text.split_once(' ')?;
    Some(Record { name: name.to_owned(), rev: rev.parse().ok()?, json: json.to_owned() })
}
