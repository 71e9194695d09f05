//! Whose turn it is: lanes, the rings they stand in, and the limits they park on.
//!
//! Pure, and without the jobs themselves: who keeps those asks [`Lanes`] which lane is next and
//! says what its first job is. The model, and the engine that keeps its queue in one file, use
//! this code; the Redis engine's scripts do the same on keys.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::command::SLICE;
use crate::id::Ulid;
use crate::job::{Options, Priority};
use crate::limits::Limits;
use crate::time::Timestamp;

/// What jobs of one lane share.
///
/// *Shape*: its name joins priority (0–2), tenant, ordering key, concurrency key and rate key
/// with tabs, which no key contains: `"1\tacme\t\tstripe\t"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane<'a> {
    /// 0–2.
    pub priority: usize,
    /// `""` for none, here and below.
    pub tenant: &'a str,
    /// Of its jobs one runs at a time, in order.
    pub ordering: &'a str,
    /// Of its jobs so many run at a time as the queue's limits say.
    pub concurrency: &'a str,
    /// Its jobs start as often as the queue's limits say.
    pub rate: &'a str,
}

impl<'a> Lane<'a> {
    /// The lane with this name.
    #[must_use]
    pub fn parse(name: &'a str) -> Self {
        let mut parts = name.split('\t');
        let mut next = || parts.next().unwrap_or_default();
        let priority = next().parse().unwrap_or(1).min(2);
        Self { priority, tenant: next(), ordering: next(), concurrency: next(), rate: next() }
    }
}

/// The name of the lane a job goes to; `None`: it has none of the options that make one.
#[must_use]
pub fn lane_name(options: &Options, priority: Priority) -> Option<String> {
    let keys = [&options.tenant, &options.ordering_key, &options.concurrency_key, &options.rate_key];
    if keys.iter().all(|key| key.is_none()) {
        return None;
    }
    let [tenant, ordering, concurrency, rate] = keys.map(|key| key.as_deref().unwrap_or_default());
    Some(format!("{}\t{tenant}\t{ordering}\t{concurrency}\t{rate}", priority.index()))
}

/// What a look at a ring found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visit {
    /// The ring is empty.
    Empty,
    /// A tenant without lanes has left it.
    Gone,
    /// The turn of this lane. It stands at the end of its ring again.
    Lane(String),
}

/// All lanes of a queue, but for the jobs in them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lanes {
    /// The queue's limits.
    pub limits: Limits,
    /// Lanes in a ring or parked. A lane leaves when its turn comes and it is empty.
    known: BTreeSet<String>,
    /// By priority, front = next: names of lanes without a tenant, and `t<tenant>`.
    rings: [VecDeque<String>; 3],
    /// The ready lanes of `<priority>\t<tenant>`.
    tenants: BTreeMap<String, VecDeque<String>>,
    /// The lanes that wait for a constraint (`o`, `c` or `r` and its key), in order.
    parks: BTreeMap<String, VecDeque<String>>,
    /// The job that holds an ordering key: it runs, or will run again.
    owners: BTreeMap<String, u128>,
    /// Running jobs by concurrency key.
    running: BTreeMap<String, u32>,
    /// When all starts of a rate key are paid for, in µs. The queue's own has key `""`.
    tats: BTreeMap<String, i64>,
    /// When lanes parked on a rate key may go on.
    timers: BTreeMap<String, Timestamp>,
    /// Where both wait, the ring has the next turn, not the list of jobs without lanes.
    pub ring_is_next: bool,
}

impl Lanes {
    /// True when some lane of the priority is ready, or seems so.
    #[must_use]
    pub fn is_ready(&self, priority: usize) -> bool {
        !self.rings[priority].is_empty()
    }

    /// How many jobs may start now by the queue's own limits, when so many run.
    #[must_use]
    pub fn room(&self, running: usize, now: Timestamp) -> (usize, usize) {
        let slots = self.limits.concurrency.map_or(usize::MAX, |most| (most as usize).saturating_sub(running));
        let starts = self.limits.rate.map_or(usize::MAX, |rate| rate.available(self.tat(""), now));
        (slots, starts)
    }

    /// So many jobs of the queue have started.
    pub fn started(&mut self, n: usize, now: Timestamp) {
        if let Some(rate) = self.limits.rate.filter(|_| n > 0) {
            self.tats.insert(String::new(), rate.after(self.tat(""), now, n));
        }
    }

    /// When the queue's rate allows the next start.
    #[must_use]
    pub fn next_start(&self) -> Option<Timestamp> {
        self.limits.rate.map(|rate| rate.next_at(self.tat("")))
    }

    /// When the first of the lanes parked on a rate may go on.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.values().min().copied()
    }

    /// A job came to the end of a lane.
    pub fn join(&mut self, name: &str) {
        if self.known.insert(name.to_owned()) {
            self.enter(name);
        }
    }

    /// A job came back to the front of a lane. If it holds the lane's ordering key, it can go on.
    pub fn return_to(&mut self, name: &str, ulid: Ulid) {
        if self.known.insert(name.to_owned()) {
            self.enter(name);
            return;
        }
        let ordering = Lane::parse(name).ordering;
        if !ordering.is_empty()
            && self.owners.get(ordering) == Some(&u128::from(ulid))
            && let Some(park) = self.parks.get_mut(&format!("o{ordering}"))
            && let Some(at) = park.iter().position(|parked| parked == name)
        {
            park.remove(at);
            self.forget_empty_park(&format!("o{ordering}"));
            self.enter(name);
        }
    }

    /// True when the job holds its lane's ordering key.
    #[must_use]
    pub fn owns_order(&self, name: &str, ulid: Ulid) -> bool {
        let ordering = Lane::parse(name).ordering;
        !ordering.is_empty() && self.owners.get(ordering) == Some(&u128::from(ulid))
    }

    /// Looks at the next in a priority's ring.
    pub fn visit(&mut self, priority: usize) -> Visit {
        let Some(entry) = self.rings[priority].pop_front() else { return Visit::Empty };
        let Some(tenant) = entry.strip_prefix('t') else {
            self.rings[priority].push_back(entry.clone());
            return Visit::Lane(entry);
        };
        let key = format!("{priority}\t{tenant}");
        let lane = self.tenants.get_mut(&key).and_then(|ring| {
            let lane = ring.pop_front()?;
            ring.push_back(lane.clone());
            Some(lane)
        });
        match lane {
            Some(lane) => {
                self.rings[priority].push_back(entry);
                Visit::Lane(lane)
            }
            None => {
                self.tenants.remove(&key);
                Visit::Gone
            }
        }
    }

    /// The lane just visited is empty.
    pub fn leave(&mut self, name: &str, now: Timestamp) {
        self.leave_ring(name);
        self.known.remove(name);
        self.pass_on(name, ' ', now);
    }

    /// Starts the first job of the lane just visited, if its constraints allow; parks the lane
    /// if not.
    pub fn start(&mut self, name: &str, ulid: Ulid, now: Timestamp) -> bool {
        let lane = Lane::parse(name);
        let is_free = |kind, key: &str| key.is_empty() || self.available(kind, key, now) > 0;
        let owns = self.owns_order(name, ulid);
        let blocked = if !owns && !is_free('o', lane.ordering) {
            ('o', lane.ordering)
        } else if !is_free('c', lane.concurrency) {
            ('c', lane.concurrency)
        } else if !is_free('r', lane.rate) {
            ('r', lane.rate)
        } else {
            self.take(&lane, ulid, now);
            return true;
        };
        self.leave_ring(name);
        self.parks.entry(format!("{}{}", blocked.0, blocked.1)).or_default().push_back(name.to_owned());
        if blocked.0 == 'r' {
            self.set_timer(blocked.1);
        }
        self.pass_on(name, blocked.0, now);
        false
    }

    fn take(&mut self, lane: &Lane<'_>, ulid: Ulid, now: Timestamp) {
        if !lane.ordering.is_empty() {
            self.owners.insert(lane.ordering.to_owned(), u128::from(ulid));
        }
        if !lane.concurrency.is_empty() {
            *self.running.entry(lane.concurrency.to_owned()).or_default() += 1;
        }
        if let Some(rate) = self.limits.rate_of(lane.rate).filter(|_| !lane.rate.is_empty()) {
            self.tats.insert(lane.rate.to_owned(), rate.after(self.tat(lane.rate), now, 1));
        }
    }

    /// A run of a job has ended. `again`: the job will run again, and keeps its ordering key.
    pub fn finished(&mut self, name: &str, ulid: Ulid, again: bool, now: Timestamp) {
        let lane = Lane::parse(name);
        if let Some(running) = self.running.get_mut(lane.concurrency) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(lane.concurrency);
            }
            self.bring('c', lane.concurrency, now);
        }
        if !again {
            self.let_go(name, ulid, now);
        }
    }

    /// A job that will not run again lets its ordering key go, if it holds it.
    pub fn let_go(&mut self, name: &str, ulid: Ulid, now: Timestamp) {
        if self.owns_order(name, ulid) {
            let ordering = Lane::parse(name).ordering;
            self.owners.remove(ordering);
            self.bring('o', ordering, now);
        }
    }

    /// Lanes whose rate allows it go on.
    pub fn wake(&mut self, now: Timestamp) {
        self.tats.retain(|_, tat| *tat > now.0.saturating_mul(1_000));
        let mut due: Vec<(Timestamp, String)> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(key, at)| (*at, key.clone())).collect();
        due.sort();
        for (_, key) in due.into_iter().take(SLICE) {
            self.timers.remove(&key);
            self.bring('r', &key, now);
        }
    }

    /// Changes the limits. Lanes that wait for one look again.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.timers.clear();
        let parks: Vec<String> = self.parks.keys().filter(|name| !name.starts_with('o')).cloned().collect();
        for park in parks {
            for name in self.parks.remove(&park).unwrap_or_default() {
                self.enter(&name);
            }
        }
    }

    /// A lane that does not use its turn gives it to others that wait for the same, except
    /// where it waits itself.
    fn pass_on(&mut self, name: &str, except: char, now: Timestamp) {
        let lane = Lane::parse(name);
        for (kind, key) in [('o', lane.ordering), ('c', lane.concurrency), ('r', lane.rate)] {
            if kind != except && !key.is_empty() {
                self.bring(kind, key, now);
            }
        }
    }

    /// Brings back as many lanes parked on a constraint as it has room for.
    fn bring(&mut self, kind: char, key: &str, now: Timestamp) {
        let park = format!("{kind}{key}");
        if !self.parks.contains_key(&park) {
            return;
        }
        for _ in 0..self.available(kind, key, now).min(SLICE) {
            let Some(name) = self.parks.get_mut(&park).and_then(VecDeque::pop_front) else { break };
            self.enter(&name);
        }
        self.forget_empty_park(&park);
        if kind == 'r' {
            if self.parks.contains_key(&park) {
                self.set_timer(key);
            } else {
                self.timers.remove(key);
            }
        }
    }

    fn available(&self, kind: char, key: &str, now: Timestamp) -> usize {
        match kind {
            'o' => usize::from(!self.owners.contains_key(key)),
            'c' => {
                let running = self.running.get(key).copied().unwrap_or(0);
                self.limits.concurrency_of(key).map_or(usize::MAX, |most| most.saturating_sub(running) as usize)
            }
            _ => self.limits.rate_of(key).map_or(usize::MAX, |rate| rate.available(self.tat(key), now)),
        }
    }

    fn set_timer(&mut self, key: &str) {
        let at = self.limits.rate_of(key).map_or(Timestamp(0), |rate| rate.next_at(self.tat(key)));
        self.timers.insert(key.to_owned(), at);
    }

    fn tat(&self, key: &str) -> i64 {
        self.tats.get(key).copied().unwrap_or(0)
    }

    fn forget_empty_park(&mut self, park: &str) {
        if self.parks.get(park).is_some_and(VecDeque::is_empty) {
            self.parks.remove(park);
        }
    }

    /// Puts a lane at the end of its ring, and its tenant into the ring if it is in none.
    fn enter(&mut self, name: &str) {
        let Lane { priority, tenant, .. } = Lane::parse(name);
        if tenant.is_empty() {
            self.rings[priority].push_back(name.to_owned());
            return;
        }
        let ring = self.tenants.entry(format!("{priority}\t{tenant}")).or_insert_with(|| {
            self.rings[priority].push_back(format!("t{tenant}"));
            VecDeque::new()
        });
        ring.push_back(name.to_owned());
    }

    /// Takes the lane just visited out of its ring, at the end of which it stands.
    fn leave_ring(&mut self, name: &str) {
        let Lane { priority, tenant, .. } = Lane::parse(name);
        if tenant.is_empty() {
            self.rings[priority].pop_back();
        } else if let Some(ring) = self.tenants.get_mut(&format!("{priority}\t{tenant}")) {
            ring.pop_back();
        }
    }
}
