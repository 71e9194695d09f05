//! A worker: the pump's thread, the apalis worker that runs handlers, and how both stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::{ParallelizeExt, WorkerBuilder, WorkerError};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use windlass_broker::SharedBroker;
use windlass_jobs::command::WorkerInfo;
use windlass_jobs::{PriorityWeights, Queue, Timestamp, new_ulid};
use windlass_store::Services;

use crate::admission::Admission;
use crate::health::{Health, HealthLimits};
use crate::isolate::Isolation;
use crate::kept::tell;
use crate::parents::hold_for_waiting;
use crate::pool::Pool;
use crate::pump::{Pump, PumpOptions, StopOrder};
use crate::registry::{Executor, Registry};
use crate::run::{RunService, Runner};
use crate::source::Source;
use crate::watchdog::Watchdog;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The queues it serves, 1 to 1,000; it takes turns between those that have jobs.
    pub queues: Vec<Queue>,
    /// How many jobs it runs at once, 1 to 10,000. Default: twice the processors.
    pub slots: usize,
    /// How much of the worker a queue may have; queues that are not named have [`Share::default`].
    pub shares: BTreeMap<Queue, Share>,
    /// The parts that high, normal and low jobs of a queue get while all three wait. Default: none,
    /// which is strict: no normal job while a high one waits.
    pub priorities: Option<PriorityWeights>,
    /// How many jobs of a kind run at once, by the kind's name, 1 or more; kinds that are not
    /// named have no bound of their own.
    pub kind_slots: BTreeMap<String, usize>,
    /// The memory that running jobs may declare together ([`Inputs`](crate::Inputs),
    /// [`KindSpec::peak_memory_bytes`](crate::KindSpec)), in bytes. A job that would
    /// overrun it waits in its queue; one that is larger alone is left to larger workers. Default:
    /// none.
    pub memory_bytes: Option<u64>,
    /// How long a job stays its own without a renewal: 100 ms to 1 h, default
    /// [`WorkerOptions::LEASE`]. A crashed worker's jobs are run elsewhere after this.
    pub lease: Duration,
    /// How long a job of a kind that this worker does not know is offered to others before it is
    /// parked: to 24 h, default [`WorkerOptions::PARK_AFTER`]. A parked job is offered again when
    /// a worker starts that knows its kind.
    pub park_after: Duration,
    /// How old its canary may be before it counts as cut off, or dead.
    pub health: HealthLimits,
    /// How children are started.
    pub isolation: Isolation,
    /// A folder for ends of runs that the broker cannot be told of while it is away, so that they are told
    /// also when the worker ends meanwhile, by whoever uses the folder next. Default none: they wait in
    /// memory, and such a job runs again.
    pub kept_dir: Option<std::path::PathBuf>,
}

impl WorkerOptions {
    /// Default of [`WorkerOptions::lease`].
    pub const LEASE: Duration = Duration::from_secs(30);
    /// Default of [`WorkerOptions::park_after`].
    pub const PARK_AFTER: Duration = windlass_jobs::command::PARK_AFTER;
    /// How long a drain waits for running jobs by default.
    pub const GRACE: Duration = Duration::from_secs(25);

    /// Defaults for these queues.
    #[must_use]
    pub fn new(queues: Vec<Queue>, isolation: Isolation) -> Self {
        let slots = 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let health = HealthLimits::default();
        Self {
            queues,
            slots,
            shares: BTreeMap::new(),
            priorities: None,
            kind_slots: BTreeMap::new(),
            memory_bytes: None,
            lease: Self::LEASE,
            park_after: Self::PARK_AFTER,
            health,
            isolation,
            kept_dir: None,
        }
    }
}

/// How much of a worker a queue may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its part beside other queues that have jobs: of weights 3 and 1 the first gets three jobs
    /// run for each of the second. 1 to 1,000, default 1.
    pub weight: u32,
    /// How many of the worker's slots it may have, 1 or more. Default: all.
    pub slots: Option<usize>,
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1, slots: None }
    }
}

/// Why a worker could not start or did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options are out of range.
    #[error("{setting}: {found}; {allowed} is allowed")]
    Option {
        /// Which.
        setting: &'static str,
        /// What was found.
        found: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// One of the worker's own threads could not be started.
    #[error("a thread of the worker")]
    Thread(#[source] std::io::Error),
    /// The pump or the apalis worker ended although nobody asked for it.
    #[error("the worker ended unasked: {0}")]
    EndedUnasked(String),
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    name: String,
    orders: watch::Sender<StopOrder>,
    health: Health,
    pump_ended: Option<oneshot::Receiver<()>>,
    handlers: Option<JoinHandle<Result<(), WorkerError>>>,
    /// Tells the queue what workers before it have kept; ends with it.
    _telling: JoinSet<()>,
}

impl Worker {
    /// Starts a worker on this runtime.
    ///
    /// # Errors
    /// [`Error`] when the options are out of range or the thread cannot be started.
    pub fn start(
        registry: Registry,
        broker: SharedBroker,
        services: Services,
        options: WorkerOptions,
    ) -> Result<Self, Error> {
        check(&options)?;
        let info = info(&registry, &options);
        let name = info.name.clone();
        let (jobs, claimed) = mpsc::unbounded_channel();
        let (reports, reported) = mpsc::unbounded_channel();
        let (orders, ordered) = watch::channel(StopOrder::Run);
        let health = Health::new(&name, options.slots, options.health);
        let (pump_ends, pump_ended) = oneshot::channel();
        let (told, heard) = mpsc::unbounded_channel();

        let admission = Admission::new(options.kind_slots.clone(), options.memory_bytes);
        let pump_options = PumpOptions {
            info,
            known: registry.names(),
            catalogue: registry.catalogue(),
            queues: options.queues.clone(),
            slots: options.slots,
            shares: shares(&options.queues, &options.shares),
            admission: Arc::clone(&admission),
            priorities: options.priorities,
            lease: options.lease,
            told,
            kept_dir: options.kept_dir.clone(),
        };
        let mut telling = JoinSet::new();
        if let Some(dir) = options.kept_dir {
            telling.spawn(tell(dir, SharedBroker::clone(&broker)));
        }
        tokio::spawn(hold_for_waiting(SharedBroker::clone(&broker), services.clone(), heard));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let pump = Pump::new(SharedBroker::clone(&broker), pump_options, jobs, health.clone());
        let run = move || {
            runtime.block_on(pump.run(reported, ordered));
            let _ = pump_ends.send(());
        };
        std::thread::Builder::new().name("windlass-pump".into()).spawn(run).map_err(Error::Thread)?;

        let pool = Pool::new(options.isolation, Arc::clone(health.counts()));
        if registry.specs().any(|spec| registry.executor(spec.name) == Some(Executor::Isolated)) {
            tokio::spawn(try_child(Arc::clone(&pool)));
        }
        let runner = Runner {
            handler: registry.layers().around_work(),
            in_place: false,
            registry,
            services,
            pool,
            watchdog: Watchdog::start().map_err(Error::Thread)?,
            queues: options.queues,
            park_after: options.park_after,
            admission,
            reports: reports.clone(),
            broker: Some(broker),
            counts: Arc::clone(health.counts()),
            tracer: opentelemetry::global::tracer(windlass_producer::trace::SCOPE),
        };
        let worker = WorkerBuilder::new(name.as_str())
            .backend(Source::new(claimed, reports))
            .parallelize(tokio::spawn)
            .build(RunService(Arc::new(runner)));
        // Boxed here: inside an async block the compiler loses sight of the future's lifetime.
        let run: BoxFuture<'static, Result<(), WorkerError>> = Box::pin(worker.run());
        let handlers = tokio::spawn(run);
        Ok(Self { name, orders, health, pump_ended: Some(pump_ended), handlers: Some(handlers), _telling: telling })
    }

    /// Its name: host, process and a random part.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is, to be asked from anywhere.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Claims nothing more; jobs still running after `grace` are given back. A second call
    /// may shorten the grace.
    pub fn drain(&self, grace: Duration) {
        let _ = self.orders.send(StopOrder::Drain(grace));
    }

    /// Waits until a drain is over.
    ///
    /// # Errors
    /// [`Error::EndedUnasked`] when it ended for any other reason: the process should exit
    /// with an error, so that it is started again.
    pub async fn wait(&mut self) -> Result<(), Error> {
        if let Some(handlers) = &mut self.handlers {
            let Some(pump_ended) = &mut self.pump_ended else { return Ok(()) };
            tokio::select! {
                ended = &mut *pump_ended => {
                    self.pump_ended = None;
                    // Handlers that outlast the grace: their jobs are released, their children die with them.
                    handlers.abort();
                    return pump_result(ended);
                }
                ended = &mut *handlers => {
                    self.handlers = None;
                    if !self.draining() {
                        return Err(Error::EndedUnasked(format!("the apalis worker: {ended:?}")));
                    }
                }
            }
        }
        let Some(pump_ended) = &mut self.pump_ended else { return Ok(()) };
        let ended = pump_ended.await;
        self.pump_ended = None;
        pump_result(ended)
    }

    fn draining(&self) -> bool {
        *self.orders.borrow() != StopOrder::Run
    }
}

/// Says at the start rather than at the first job what is wrong with children. The one that was
/// started waits for that job.
async fn try_child(pool: Arc<Pool>) {
    if let Err(error) = pool.warm().await {
        tracing::warn!(%error, "no child can be started: jobs that need one will fail");
    }
}

fn pump_result(ended: Result<(), oneshot::error::RecvError>) -> Result<(), Error> {
    ended.map_err(|_| Error::EndedUnasked("the pump's thread panicked".to_owned()))
}

/// The share of each queue; shards of a queue have that of the queue together.
fn shares(queues: &[Queue], named: &BTreeMap<Queue, Share>) -> Vec<Share> {
    let shards_of = |queue: &Queue| {
        let count = queues.iter().filter(|other| queue.is_shard() && other.is_shard() && other.name() == queue.name());
        u32::try_from(count.count().max(1)).unwrap_or(u32::MAX)
    };
    // Weights are whole numbers: all are multiplied so that each part of one is.
    let times = queues.iter().map(shards_of).fold(1_u32, |times, shards| match times % shards {
        0 => times,
        _ => times.saturating_mul(shards).min(MOST_TIMES),
    });
    let share_of = |queue: &Queue| {
        let whole = || Queue::new(queue.name()).ok().and_then(|name| named.get(&name));
        let share = named.get(queue).or_else(whole).copied().unwrap_or_default();
        Share { weight: (share.weight.saturating_mul(times) / shards_of(queue)).max(1), ..share }
    };
    queues.iter().map(share_of).collect()
}

/// Most by which weights are multiplied: far beyond what a worker's slots can tell apart.
const MOST_TIMES: u32 = 65_536;

fn check(options: &WorkerOptions) -> Result<(), Error> {
    let fail = |setting, found: String, allowed| Err(Error::Option { setting, found, allowed });
    if !(1..=1000).contains(&options.queues.len()) {
        return fail("queues", options.queues.len().to_string(), "1 to 1000");
    }
    if !(1..=10_000).contains(&options.slots) {
        return fail("slots", options.slots.to_string(), "1 to 10000");
    }
    if options.isolation.recycle.after_jobs == 0 {
        return fail("recycle.after_jobs", "0".to_owned(), "1 or more");
    }
    if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&options.lease) {
        return fail("lease", format!("{} ms", options.lease.as_millis()), "100 ms to 1 h");
    }
    let share_fits = |share: &Share| (1..=1000).contains(&share.weight) && share.slots != Some(0);
    if let Some((queue, share)) = options.shares.iter().find(|(_, share)| !share_fits(share)) {
        let found = format!("{queue}: weight {}, slots {:?}", share.weight, share.slots);
        return fail("shares", found, "a weight of 1 to 1000 and at least one slot");
    }
    if let Some((kind, _)) = options.kind_slots.iter().find(|(_, slots)| **slots == 0) {
        return fail("kind_slots", format!("{kind}: 0"), "1 or more");
    }
    if options.memory_bytes == Some(0) {
        return fail("memory_bytes", "0".to_owned(), "1 or more, or none");
    }
    if options.park_after > Duration::from_secs(86_400) {
        return fail("park_after", format!("{} s", options.park_after.as_secs()), "at most 24 h");
    }
    let HealthLimits { ready_within, live_within } = options.health;
    if !(Duration::from_millis(500)..=Duration::from_secs(3600)).contains(&ready_within) {
        return fail("health.ready_within", format!("{} ms", ready_within.as_millis()), "500 ms to 1 h");
    }
    if !(ready_within..=Duration::from_secs(86_400)).contains(&live_within) {
        let allowed = "from health.ready_within to a day";
        return fail("health.live_within", format!("{} ms", live_within.as_millis()), allowed);
    }
    Ok(())
}

fn info(registry: &Registry, options: &WorkerOptions) -> WorkerInfo {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pid = std::process::id();
    let short: String = host.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    let random = new_ulid().to_string();
    WorkerInfo {
        name: format!("{short}-{pid}-{}", &random[random.len() - 6..]),
        host,
        pid,
        queues: options.queues.clone(),
        kinds: registry.specs().map(|spec| spec.name.to_owned()).collect(),
        slots: options.slots,
        running: 0,
        jobs: Vec::new(),
        canary_age_ms: None,
        draining: false,
        started_at: Timestamp::now(),
        seen_at: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
