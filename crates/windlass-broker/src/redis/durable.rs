//! Enqueues that wait until replicas or the disk have them.
//!
//! `WAIT` and `WAITAOF` hold up the connection on which they are said, and know of the writes of that
//! connection only: the enqueue and the wait go over it one right after the other, on connections
//! that nothing else uses.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use windlass_jobs::{Durability, NewJob, millis};
use windlass_redis::{Cmd, Error, Link, Script, Value, cmd};

/// What jobs wait for that ask for more than [`Durability::Fast`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// How many replicas have to have a job that is to be [`Durability::Replicated`]: 1 or more,
    /// default 1.
    pub replicas: u32,
    /// How long an enqueue waits for what was asked for before it answers that it was not reached.
    /// 1 ms or more, default 1 s.
    pub within: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { replicas: 1, within: Duration::from_secs(1) }
    }
}

/// What some of a slice's jobs ask for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wish {
    replicated: bool,
    fsynced: bool,
}

impl Wish {
    pub(super) fn of(jobs: &[NewJob]) -> Self {
        let any = |durability| jobs.iter().any(|job| job.options.durability == durability);
        Self { replicated: any(Durability::Replicated), fsynced: any(Durability::Fsynced) }
    }

    pub(super) const fn is_fast(self) -> bool {
        !self.replicated && !self.fsynced
    }
}

/// What was reached of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reached {
    replicated: bool,
    fsynced: bool,
}

impl Reached {
    pub(super) const fn of(self, wish: Durability) -> Durability {
        match wish {
            Durability::Replicated if self.replicated => Durability::Replicated,
            Durability::Fsynced if self.fsynced => Durability::Fsynced,
            _ => Durability::Fast,
        }
    }
}

/// Connections for calls that wait.
#[derive(Debug)]
pub(super) struct Durable {
    options: windlass_redis::Options,
    waits: Waits,
    room: Semaphore,
    free: Mutex<Vec<Link>>,
}

/// Waits for the append-only file, from Redis 7.2 on. Not in the users' files of `deploy/redis`, which
/// an older server would refuse as a whole.
const WAIT_AOF: &str = "WAITAOF";
/// Where that is not known, a server that syncs before each answer says so, if it may be asked.
const CONFIG: &str = "CONFIG";

impl Durable {
    /// Most calls that wait at once, each on a connection of its own.
    const CONNECTIONS: usize = 8;

    pub(super) fn new(link: &Link, waits: Waits) -> Self {
        let mut options = link.options().clone();
        options.max_connections = 1;
        // A wait that is in vain ends before its connection is given up.
        options.response_timeout += waits.within * 2;
        Self { options, waits, room: Semaphore::new(Self::CONNECTIONS), free: Mutex::default() }
    }

    /// Runs an enqueue, and waits for what is asked for. Where no connection gets free in time, or the
    /// queue's slot is moving, it is enqueued all the same, and nothing more is reached.
    pub(super) async fn run(
        &self,
        link: &Link,
        script: &Script,
        call: Cmd,
        key: &str,
        wish: Wish,
    ) -> Result<(Value, Reached), Error> {
        let Ok(Ok(_room)) = tokio::time::timeout(self.waits.within, self.room.acquire()).await else {
            return Ok((script.run(link, &call).await?, Reached::default()));
        };
        let own = self.free().pop();
        let own = match own {
            Some(own) => own,
            None => Link::new(self.options.clone())?,
        };
        let replies = script.run_with(&own, call.clone(), &self.rest(key, wish)).await;
        self.free().push(own);
        let mut replies = replies?.into_iter();
        match replies.next() {
            Some(Err(e)) if matches!(e.code(), Some("MOVED" | "ASK" | "TRYAGAIN")) => {
                Ok((script.run(link, &call).await?, Reached::default()))
            }
            Some(first) => Ok((first?, self.reached(wish, replies.collect()))),
            None => Err(Error::timeout(link.shown(), "no answer")),
        }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said behind the enqueue. First a write, without which a wait for ids that were known
    /// would be for nothing.
    fn rest(&self, key: &str, wish: Wish) -> Vec<Cmd> {
        let mut write = cmd("HSET");
        write.arg(key).arg("durable").arg(1);
        let mut rest = vec![write];
        if wish.replicated {
            let mut wait = cmd("WAIT");
            wait.arg(self.waits.replicas).arg(millis(self.waits.within));
            rest.push(wait);
        }
        if wish.fsynced {
            let (mut wait, mut ask) = (cmd(WAIT_AOF), cmd(CONFIG));
            wait.arg(1).arg(0).arg(millis(self.waits.within));
            ask.arg("GET").arg("append*");
            rest.extend([wait, ask]);
        }
        rest
    }

    fn reached(&self, wish: Wish, rest: Vec<Result<Value, Error>>) -> Reached {
        let mut rest = rest.into_iter().map(Result::ok);
        let mut next = || rest.next().flatten();
        if next().is_none() {
            return Reached::default();
        }
        let replicated =
            wish.replicated && matches!(next(), Some(Value::Int(n)) if n >= i64::from(self.waits.replicas));
        let fsynced = wish.fsynced && {
            let (waited, config) = (next(), next());
            match waited {
                Some(Value::Array(reached)) => matches!(reached.first(), Some(Value::Int(n)) if *n >= 1),
                _ => config.is_some_and(syncs_always),
            }
        };
        Reached { replicated, fsynced }
    }
}

/// True for a server that answers no write before it is on its disk.
fn syncs_always(config: Value) -> bool {
    let Ok(all) = windlass_redis::from_redis_value::<std::collections::HashMap<String, String>>(config) else {
        return false;
    };
    let is = |name: &str, value: &str| all.get(name).is_some_and(|found| found == value);
    is("appendonly", "yes") && is("appendfsync", "always")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect())
    }

    /// What servers answer of 7.2 and later, of before, and to users without the right to ask.
    #[test]
    fn what_was_reached_is_read_from_the_answers() {
        let link = Link::new(windlass_redis::Options::from_url("redis://127.0.0.1:1").unwrap()).unwrap();
        let durable = Durable::new(&link, Waits { replicas: 2, within: Duration::from_millis(5) });
        let check = |replicated: bool, fsynced: bool, rest: Vec<Option<Value>>, expected: (bool, bool)| {
            let wish = Wish { replicated, fsynced };
            assert_eq!(durable.rest("k", wish).len(), rest.len());
            let told = format!("{rest:?}");
            let answer = |reply: Option<Value>| reply.ok_or_else(|| Error::timeout("s", "an error"));
            let found = durable.reached(wish, rest.into_iter().map(answer).collect());
            assert_eq!((found.replicated, found.fsynced), expected, "{told}");
        };
        let wrote = || Some(Value::Int(0));
        let aof = |local| Some(Value::Array(vec![Value::Int(local), Value::Int(0)]));
        let always = || Some(text(&["appendonly", "yes", "appendfsync", "always"]));
        check(true, false, vec![wrote(), Some(Value::Int(2))], (true, false));
        check(true, false, vec![wrote(), Some(Value::Int(1))], (false, false));
        check(true, false, vec![None, Some(Value::Int(2))], (false, false));
        check(false, true, vec![wrote(), aof(1), always()], (false, true));
        check(false, true, vec![wrote(), aof(0), always()], (false, false));
        check(false, true, vec![wrote(), None, always()], (false, true));
        check(false, true, vec![wrote(), None, None], (false, false));
        for config in [["appendonly", "no", "appendfsync", "always"], ["appendonly", "yes", "appendfsync", "everysec"]]
        {
            check(false, true, vec![wrote(), None, Some(text(&config))], (false, false));
        }
        check(true, true, vec![wrote(), Some(Value::Int(3)), aof(1), None], (true, true));
    }
}
