//! Random verbs on an engine and on the model, and the shortest sequence on which they differ.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_broker::SharedBroker;
use windlass_jobs::{SetClock, Timestamp};

use super::play::{Difference, play};
use super::steps::{Maker, Step};

/// Steps of one sequence; each is played on a fresh queue.
const SEQUENCE: usize = 500;
/// Terminal jobs kept per list: few, so that they leave.
const KEEP: usize = 30;
/// Most plays of a shrinking, and how long it may take.
const MOST_REPLAYS: usize = 600;
const LONGEST_SHRINKING: Duration = Duration::from_secs(45);
/// Longer than all short leases and delays.
const APART: Duration = Duration::from_millis(5);
/// Names the only seed to be played.
const SEED_VARIABLE: &str = "WINDLASS_SEED";
/// How many steps [`random_soak`] takes.
const STEPS_VARIABLE: &str = "WINDLASS_SOAK_STEPS";

/// Plays at least `steps` random verbs on an engine and on a
/// [`Model`](windlass_jobs::model::Model) and compares every reply, and from time to time
/// everything that can be read.
///
/// `make` answers a broker for so many terminal jobs per list, and whatever must outlive it. It
/// is given a clock the first time it is called; if it takes a copy of it, the clock is in the
/// test's hand and no time is spent waiting. Else the model is told the engine's time, so that
/// no comparison depends on how fast the test runs.
///
/// With the variable `WINDLASS_SEED` only the sequence of that seed is played.
///
/// # Panics
/// At the first difference; prints the seed and the shortest sequence found that shows one.
pub async fn random_against_model<F, T, G>(make: F, first_seed: u64, steps: usize)
where
    F: Fn(usize, Arc<SetClock>) -> T,
    T: Future<Output = (SharedBroker, G)>,
{
    let stage = Stage { make: &make };
    let seeds = match number(SEED_VARIABLE) {
        Some(seed) => seed..seed + 1,
        None => first_seed..first_seed + steps.div_ceil(SEQUENCE) as u64,
    };
    // While one waits, for its store or for an instant, the others go on.
    let lane = |n| stage.play_all(seeds.clone().skip(n).step_by(3));
    tokio::join!(lane(0), lane(1), lane(2));
}

/// The long form of [`random_against_model`]: with the variable `WINDLASS_SOAK_STEPS` so many
/// steps from other seeds, else a single sequence.
///
/// # Panics
/// As [`random_against_model`].
#[allow(clippy::print_stdout, reason = "a soak says how long it took")]
pub async fn random_soak<F, T, G>(make: F)
where
    F: Fn(usize, Arc<SetClock>) -> T,
    T: Future<Output = (SharedBroker, G)>,
{
    let steps = number(STEPS_VARIABLE).and_then(|n| usize::try_from(n).ok()).unwrap_or(SEQUENCE);
    let begun = Instant::now();
    random_against_model(make, 1_000_000, steps).await;
    println!("{steps} random steps in {:.1?}", begun.elapsed());
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")))
}

/// Where sequences are played.
struct Stage<'a, F> {
    make: &'a F,
}

impl<F, T, G> Stage<'_, F>
where
    F: Fn(usize, Arc<SetClock>) -> T,
    T: Future<Output = (SharedBroker, G)>,
{
    /// A fresh broker, and its clock if it is in hand.
    async fn make(&self) -> (SharedBroker, Option<Arc<SetClock>>, G) {
        let clock = Arc::new(SetClock::new(Timestamp(1_000_000)));
        let (broker, guard) = (self.make)(KEEP, Arc::clone(&clock)).await;
        let in_hand = (Arc::strong_count(&clock) > 1).then_some(clock);
        (broker, in_hand, guard)
    }

    async fn is_exact(&self) -> bool {
        self.make().await.1.is_some()
    }

    async fn play_all(&self, seeds: impl Iterator<Item = u64>) {
        for seed in seeds {
            let steps = Maker::new(seed, self.is_exact().await).steps(SEQUENCE);
            if let Some(difference) = self.play(&steps, false).await {
                panic!("{}", self.report(seed, steps, difference).await);
            }
        }
    }

    async fn play(&self, steps: &[Step], thorough: bool) -> Option<Difference> {
        let (broker, clock, _guard) = self.make().await;
        play(&broker, clock, KEEP, steps, thorough).await
    }

    /// What to print about a difference: the shortest sequence that shows one.
    async fn report(&self, seed: u64, mut steps: Vec<Step>, first: Difference) -> String {
        let engine = self.make().await.0.engine();
        let all = first.step + 1;
        steps.truncate(all);
        let mut shrinking = Shrinking { stage: self, steps, best: first, begun: Instant::now(), replays: 0 };
        shrinking.run(self.is_exact().await).await;
        let Shrinking { best: Difference { step, trace, what, .. }, replays, .. } = shrinking;
        let lines = trace.iter().enumerate().map(|(i, line)| format!("{:>3}. {line}", i + 1));
        format!(
            "{engine} and the model differ: seed {seed}, step {all}; shrunk to {} steps by {replays} replays, each \
             with what both answered:\n{}\nthen differs {what}\nto play it again: {SEED_VARIABLE}={seed} cargo test, \
             with the name of this test",
            step + 1,
            lines.collect::<Vec<_>>().join("\n"),
        )
    }
}

/// Leaving out steps, then parts of steps, as long as a difference remains.
struct Shrinking<'a, F> {
    stage: &'a Stage<'a, F>,
    /// The last of them shows the difference.
    steps: Vec<Step>,
    best: Difference,
    begun: Instant,
    replays: usize,
}

impl<F, T, G> Shrinking<'_, F>
where
    F: Fn(usize, Arc<SetClock>) -> T,
    T: Future<Output = (SharedBroker, G)>,
{
    async fn run(&mut self, exact: bool) {
        // Compared after every step, it may show earlier.
        let is_certain = self.accept(self.best.pinned.clone()).await || exact;
        if !is_certain {
            self.space().await;
        }
        self.minimise().await;
        if is_certain && !exact && self.space().await {
            self.minimise().await;
        }
    }

    /// Takes time between the steps: what ran out by chance then runs out for certain.
    async fn space(&mut self) -> bool {
        let spaced = self.steps.iter().flat_map(|step| [step.clone(), Step::Wait(APART)]);
        self.accept(spaced.collect()).await
    }

    /// Leaves out what can be.
    async fn minimise(&mut self) {
        let mut size = self.steps.len() / 2;
        loop {
            let before = self.replays;
            while size > 0 {
                let found = self.leave_out(size).await;
                size = if size == 1 && found { 1 } else { size / 2 };
            }
            let found = self.make_smaller().await;
            if !found || self.replays == before {
                return;
            }
            size = 1;
        }
    }

    /// Leaves out so many steps at a time, wherever that can be.
    async fn leave_out(&mut self, size: usize) -> bool {
        let (mut found, mut start) = (false, 0);
        while start < self.steps.len() {
            let mut shorter = self.steps.clone();
            shorter.drain(start..(start + size).min(shorter.len()));
            if self.accept(shorter).await {
                found = true;
            } else {
                start += size;
            }
        }
        found
    }

    /// Makes single steps smaller, wherever that can be.
    async fn make_smaller(&mut self) -> bool {
        let (mut found, mut i) = (false, 0);
        while i < self.steps.len() {
            let mut found_here = false;
            for smaller in self.steps[i].smaller() {
                let mut shorter = self.steps.clone();
                shorter[i] = smaller;
                if self.accept(shorter).await {
                    (found, found_here) = (true, true);
                    break;
                }
            }
            if !found_here {
                i += 1;
            }
        }
        found
    }

    /// Takes a sequence over if it shows a difference too.
    async fn accept(&mut self, mut steps: Vec<Step>) -> bool {
        if self.replays == MOST_REPLAYS || self.begun.elapsed() > LONGEST_SHRINKING {
            return false;
        }
        self.replays += 1;
        let Some(difference) = self.stage.play(&steps, true).await else { return false };
        steps.truncate(difference.step + 1);
        (self.steps, self.best) = (steps, difference);
        true
    }
}
