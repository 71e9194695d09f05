//! Values in this process: with their time, bounded in bytes, least recently used first out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What an entry takes beside its name and value, in bytes, roughly.
const OVERHEAD: usize = 200;

#[derive(Debug)]
pub(super) struct Memory {
    inner: Mutex<Inner>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    /// Names by their last use.
    order: BTreeMap<u64, String>,
    bytes: usize,
    tick: u64,
}

#[derive(Debug)]
struct Entry {
    value: String,
    expires_at: Instant,
    used: u64,
}

impl Inner {
    fn remove(&mut self, name: &str) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.order.remove(&entry.used);
        self.bytes -= name.len() + entry.value.len() + OVERHEAD;
        Some(entry)
    }

    fn insert(&mut self, name: &str, value: String, expires_at: Instant) {
        self.remove(name);
        self.tick += 1;
        self.bytes += name.len() + value.len() + OVERHEAD;
        self.order.insert(self.tick, name.to_owned());
        self.entries.insert(name.to_owned(), Entry { value, expires_at, used: self.tick });
    }

    /// The entry if its time is not over, used now.
    fn live(&mut self, name: &str) -> Option<(String, Instant)> {
        let entry = self.remove(name)?;
        if entry.expires_at <= Instant::now() {
            return None;
        }
        let found = (entry.value.clone(), entry.expires_at);
        self.insert(name, entry.value, entry.expires_at);
        Some(found)
    }

    fn make_room(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes {
            let Some(oldest) = self.order.values().next().cloned() else { return };
            self.remove(&oldest);
        }
    }

    /// Names that begin with a text, one by one from the index.
    fn under(&self, prefix: &str) -> Vec<String> {
        let from = self.entries.range(prefix.to_owned()..);
        from.map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect()
    }
}

impl Memory {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { inner: Mutex::default(), max_bytes }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &str) -> Option<(String, Duration)> {
        let (value, expires_at) = self.inner().live(name)?;
        Some((value, expires_at.saturating_duration_since(Instant::now())))
    }

    pub(super) fn set(&self, name: &str, value: String, ttl: Duration) {
        let mut inner = self.inner();
        inner.insert(name, value, Instant::now() + ttl);
        inner.make_room(self.max_bytes);
    }

    pub(super) fn remove(&self, name: &str) -> bool {
        self.inner().remove(name).is_some_and(|entry| entry.expires_at > Instant::now())
    }

    /// Changes a value in one step: `change` sees what is there and answers what is to be there,
    /// with its time, and what to say.
    pub(super) fn update<T>(
        &self,
        name: &str,
        change: impl FnOnce(Option<(String, Duration)>) -> (Option<(String, Duration)>, T),
    ) -> T {
        let mut inner = self.inner();
        let now = Instant::now();
        let before = inner.live(name).map(|(value, at)| (value, at.saturating_duration_since(now)));
        let (after, said) = change(before);
        match after {
            Some((value, ttl)) => inner.insert(name, value, now + ttl),
            None => drop(inner.remove(name)),
        }
        inner.make_room(self.max_bytes);
        said
    }

    /// Removes everything whose name begins with a text; how many that were not past their time.
    pub(super) fn clear(&self, prefix: &str) -> u64 {
        let mut inner = self.inner();
        let now = Instant::now();
        let names = inner.under(prefix);
        names.iter().filter(|name| inner.remove(name).is_some_and(|entry| entry.expires_at > now)).count() as u64
    }

    pub(super) fn count(&self, prefix: &str) -> u64 {
        let inner = self.inner();
        let now = Instant::now();
        inner.under(prefix).iter().filter(|name| inner.entries[*name].expires_at > now).count() as u64
    }

    pub(super) fn bytes(&self) -> usize {
        self.inner().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn values_go_after_their_time() {
        let memory = Memory::new(10_000);
        memory.set("a", "1".into(), LONG);
        assert_eq!(memory.get("a"), Some(("1".into(), LONG)));
        tokio::time::advance(LONG).await;
        assert_eq!((memory.count(""), memory.get("a"), memory.bytes()), (0, None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_used_longest_ago_makes_room() {
        let memory = Memory::new(3 * (OVERHEAD + 11));
        for name in ["a", "b", "c"] {
            memory.set(name, "0123456789".into(), LONG);
        }
        memory.get("a");
        memory.set("d", "0123456789".into(), LONG);
        let there = ["a", "b", "c", "d"].map(|name| memory.get(name).is_some());
        assert_eq!(there, [true, false, true, true]);
        memory.set("e", "x".repeat(10_000), LONG);
        assert_eq!(memory.bytes(), 0, "larger than all there is");
    }

    #[tokio::test(start_paused = true)]
    async fn clearing_takes_names_literally() {
        let memory = Memory::new(10_000);
        for name in ["u:1:a", "u:1:b", "u:10:a", "u:*:a", "v"] {
            memory.set(name, "x".into(), LONG);
        }
        assert_eq!((memory.clear("u:*:"), memory.clear("u:1:"), memory.count("u:"), memory.count("")), (1, 2, 1, 2));
    }
}
