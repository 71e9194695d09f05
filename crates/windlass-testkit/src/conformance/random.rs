//! Random verbs on an engine and on the model in step.

use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Claim, Enqueued, Exchange, Exchanged, Finish, Settle};
use windlass_jobs::model::Model;
use windlass_jobs::{JobId, Lease, NewJob, Priority, Progress, Queue, Reason, State, Timestamp, Ulid, When};

use crate::unique_queue;

/// The engine's instant of a renewal is not answered, so that the model's may differ by as
/// much. Long leases lie an hour apart, so that their order does not depend on it.
const SLACK: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);

/// Runs `steps` random verbs from `seed` on an engine and on a [`Model`] and compares every
/// reply, and from time to time everything that can be read. The broker must keep `keep`
/// terminal jobs per list. The model is told the engine's own time, so that no comparison
/// depends on how fast the test runs.
///
/// # Panics
/// At the first difference; names the seed and the step.
pub async fn random_against_model(broker: &SharedBroker, seed: u64, steps: usize, keep: usize) {
    let queue = unique_queue("random");
    let model = Model::keeping(queue.clone(), keep);
    let mut pair = Pair { broker, queue, model, dice: Dice(seed), known: vec![], leases: vec![], long: 1 };
    for step in 0..steps {
        let at = format!("seed {seed}, step {step}");
        pair.step(&at).await;
        if step % 100 == 99 || step + 1 == steps {
            pair.compare_all(&at).await;
        }
    }
}

/// A small generator (splitmix64): the same seed gives the same verbs everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("it is less than a usize")
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())).cloned() }
    }
}

struct Pair<'a> {
    broker: &'a SharedBroker,
    queue: Queue,
    model: Model,
    dice: Dice,
    known: Vec<Ulid>,
    /// Handed out at some time; many are no longer held.
    leases: Vec<Lease>,
    /// Which hour the next long lease ends in.
    long: u32,
}

impl Pair<'_> {
    async fn step(&mut self, at: &str) {
        match self.dice.below(100) {
            0..30 => self.enqueue(at).await,
            30..80 => self.exchange(at).await,
            80..88 => self.renew(at).await,
            88..94 => self.progress(at).await,
            94..97 => self.read(at).await,
            // Short leases and delays come to their end.
            _ => tokio::time::sleep(Duration::from_millis(3)).await,
        }
    }

    async fn enqueue(&mut self, at: &str) {
        let mut jobs: Vec<NewJob> = Vec::new();
        for _ in 0..=self.dice.below(8) {
            let job = self.new_job();
            jobs.push(job);
            if self.dice.chance(5) {
                jobs.extend(self.dice.pick(&jobs));
            }
        }
        let replies = self.broker.enqueue(&self.queue, &jobs).await.unwrap();
        // The engine's instant, read back from a job it accepted; it matters only if there is one.
        let now = match replies.iter().find(|reply| reply.fresh) {
            Some(Enqueued { ulid, .. }) => {
                let record = self.broker.get(&JobId::new(*ulid, self.queue.clone())).await.unwrap();
                record.unwrap_or_else(|| panic!("{at}: {ulid} was accepted")).created_at
            }
            None => Timestamp::now(),
        };
        assert_eq!(replies, self.model.enqueue(&jobs, now).0, "{at}: enqueue {jobs:?}");
        self.known.extend(jobs.iter().map(|job| job.ulid));
    }

    fn new_job(&mut self) -> NewJob {
        let dice = &mut self.dice;
        let filler = if dice.chance(5) { 3_000 } else { dice.below(100) };
        let mut job = NewJob::new("test.kind", &"x".repeat(filler)).expect("a text is JSON");
        if dice.chance(10) {
            job.ulid = dice.pick(&self.known).unwrap_or(job.ulid);
        }
        job.when = match dice.below(10) {
            0 => When::After(Duration::ZERO),
            1 | 2 => When::After(Duration::from_millis(dice.next() % 4)),
            3 => When::At(Timestamp(0)),
            4 => When::After(HOUR * u32::try_from(dice.below(3) + 1).expect("it is small")),
            _ => When::Now,
        };
        job.options.priority = Priority::ALL[dice.below(3)];
        if dice.chance(20) {
            job.options.max_attempts = Some(5);
            job.options.timeout = Some(Duration::from_millis(250));
            job.options.labels.insert("tenant".into(), "a b".into());
        }
        job
    }

    async fn exchange(&mut self, at: &str) {
        let mut finishes = Vec::new();
        for _ in 0..self.dice.below(12) {
            if let Some(lease) = self.some_lease() {
                finishes.push(Finish { lease, settle: self.settle() });
            }
        }
        let claim = self.dice.chance(80).then(|| Claim {
            worker: format!("w{}", self.dice.below(4)),
            max: self.dice.below(15),
            lease: if self.dice.chance(60) { Duration::from_millis(self.dice.next() % 3) } else { self.long_lease() },
        });
        let exchange = Exchange { finishes, claim };
        let reply = self.broker.exchange(&self.queue, &exchange).await.unwrap();
        let (mut expected, _) = self.model.exchange(&exchange, reply.now);
        forgive_renewals(&reply, &mut expected);
        assert_eq!(reply, expected, "{at}: {exchange:?}");
        self.leases.extend(reply.claimed.iter().map(|claimed| claimed.lease));
        // Old ones stay for a while, to be refused.
        let surplus = self.leases.len().saturating_sub(150);
        self.leases.drain(..surplus);
    }

    fn settle(&mut self) -> Settle {
        let dice = &mut self.dice;
        let (failures, text) = (u32::try_from(dice.below(4)).expect("it is small"), dice.below(1_000).to_string());
        let error = super::error_text(&text);
        let delay = if dice.chance(20) { HOUR } else { Duration::from_millis(dice.next() % 4) };
        match dice.below(12) {
            0..4 => Settle::Success { result: None, skipped: false },
            4 => Settle::Success { result: Some(text), skipped: dice.chance(50) },
            5 => Settle::Failure { reason: Reason::ALL[dice.below(Reason::ALL.len())], failures, error },
            6 => Settle::Cancelled { error },
            7 => Settle::Snooze { delay },
            8 | 9 => Settle::Release,
            _ => Settle::Retry { delay, failures, error },
        }
    }

    async fn renew(&mut self, at: &str) {
        let leases: Vec<Lease> = (0..self.dice.below(8)).filter_map(|_| self.some_lease()).collect();
        let lease = self.long_lease();
        let acks = self.broker.renew(&self.queue, &leases, lease).await.unwrap();
        assert_eq!(acks, self.model.renew(&leases, lease, Timestamp::now()), "{at}: renew {leases:?}");
    }

    async fn progress(&mut self, at: &str) {
        let Some(lease) = self.some_lease() else { return };
        #[allow(clippy::cast_precision_loss, reason = "a number below 1,000 fits an f32")]
        let progress = Progress::new(self.dice.below(1_000) as f32 / 10.0, "some of it");
        let ack = self.broker.progress(&self.queue, lease, &progress).await.unwrap();
        assert_eq!(ack, self.model.progress(lease, &progress), "{at}: progress of {lease}");
        assert!(matches!(ack, Ack::Taken | Ack::Stale));
    }

    async fn read(&mut self, at: &str) {
        let state = State::ALL[self.dice.below(State::ALL.len())];
        let (cursor, limit) = (self.dice.next() % 20, self.dice.below(30) + 1);
        let page = self.broker.list(&self.queue, state, cursor, limit).await.unwrap();
        assert_eq!(page, self.model.list(state, cursor, limit), "{at}: {limit} {state} from {cursor}");
    }

    /// A lease that is held, or was once, or never.
    fn some_lease(&mut self) -> Option<Lease> {
        let mut lease = self.dice.pick(&self.leases)?;
        if self.dice.chance(5) {
            lease.epoch += 1;
        }
        Some(lease)
    }

    fn long_lease(&mut self) -> Duration {
        self.long += 1;
        HOUR * self.long
    }

    async fn compare_all(&self, at: &str) {
        let counts = self.broker.counts(&self.queue).await.unwrap();
        assert_eq!(counts, self.model.counts(), "{at}: counts");
        for state in State::ALL {
            let page = self.broker.list(&self.queue, state, 0, 500).await.unwrap();
            assert_eq!(page, self.model.list(state, 0, 500), "{at}: {state}");
        }
        for ulid in &self.known {
            let record = self.broker.get(&JobId::new(*ulid, self.queue.clone())).await.unwrap();
            assert_eq!(record, self.model.get(*ulid), "{at}: record of {ulid}");
        }
    }
}

/// Takes over the end of a renewed lease if it is near enough.
fn forgive_renewals(reply: &Exchanged, expected: &mut Exchanged) {
    if let (Some(found), Some(wanted)) = (reply.next_lease, expected.next_lease)
        && found.since(wanted).max(wanted.since(found)) < SLACK
    {
        expected.next_lease = Some(found);
    }
}
