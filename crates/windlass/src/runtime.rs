//! From settings to the parts a command works with.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use windlass_broker::redis::RedisBroker;
use windlass_broker::sqlite::{SqliteBroker, SqliteOptions};
use windlass_broker::{Sharded, SharedBroker};
use windlass_jobs::Queue;
use windlass_market::{Market, Watcher};
use windlass_producer::{Producer, Spool};
use windlass_redis::Link;
use windlass_store::records::{PostgresRecords, Records, RedisRecords, SqliteRecords};
use windlass_store::{Claims, FileClaims, RedisClaims, Services, file_services, redis_services};
use windlass_worker::{Isolation, Registry, Worker, WorkerOptions};

use crate::close_queue::CloseQueue;
use crate::settings::Settings;

/// The stores of a process.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) broker: SharedBroker,
    /// Makes the same queue for a worker's pump. On Redis over a connection that nothing else
    /// uses: a connection is driven by the runtime that made it, and ends with it. A handler that
    /// blocks the main runtime must not keep the pump's thread from renewing leases.
    pub(crate) pump: MakeBroker,
    pub(crate) services: Services,
    /// How the queue's Redis is reached, if it is one.
    pub(crate) link: Option<Link>,
    /// Which idempotency keys were used.
    pub(crate) claims: Arc<dyn Claims>,
    /// Schedules and whatever else must not be lost.
    pub(crate) records: Arc<dyn Records>,
    /// Where a copy of the records is kept, if they lie in a store that may lose them.
    pub(crate) snapshot: Option<PathBuf>,
    /// Where jobs wait while the queue's store is away; none on the embedded one, which never is.
    pub(crate) spool: Option<Spool>,
    /// Where workers keep ends of runs while the queue's store is away.
    pub(crate) kept_dir: Option<PathBuf>,
    /// Where they are, for people.
    pub(crate) place: String,
    /// True when nothing but files is used.
    pub(crate) embedded: bool,
    /// Positions and prices; nothing of it is opened before it is needed.
    pub(crate) market: Market,
}

/// Makes a broker of its own for each worker.
pub(crate) type MakeBroker = Arc<dyn Fn() -> anyhow::Result<SharedBroker> + Send + Sync>;

impl Stores {
    /// Opens what the settings name. A Redis is not contacted yet.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        match &settings.redis {
            Some(options) => Self::redis(options, settings),
            None => Self::embedded(settings).await,
        }
    }

    fn redis(options: &windlass_redis::Options, settings: &Settings) -> anyhow::Result<Self> {
        let (link, prefix) = (Link::new(options.clone())?, settings.queue_prefix.as_str());
        let images = Some(settings.images.open(settings)?);
        let services = Services { images, ..redis_services(&link, prefix, settings.limits.clone()) };
        let claims = Arc::new(RedisClaims::new(link.clone(), prefix));
        let records: Arc<dyn Records> = match &settings.records_database_url {
            Some(url) => Arc::new(PostgresRecords::new(&url.0)?),
            None => Arc::new(RedisRecords::new(link.clone(), prefix)),
        };
        let may_be_lost = settings.records_database_url.is_none();
        let broker = Arc::new(RedisBroker::new(link.clone(), prefix).waiting(settings.waits));
        let broker = Sharded::over(broker, settings.shards.clone());
        // One for each server and prefix: a copy of one never seeds another.
        let which = windlass_store::Digest::of(format!("{}\0{prefix}", options.shown()).as_bytes());
        let which = &which.hex()[..16];
        let snapshot = may_be_lost.then(|| settings.data_dir.join(format!("records-{which}.json")));
        let spool = match settings.spool_bytes {
            0 => None,
            most => {
                let dir = settings.data_dir.join("spool").join(which);
                Some(Spool::open(&dir, most).with_context(|| format!("the spool {}", dir.display()))?)
            }
        };
        let kept_dir = Some(settings.data_dir.join("ends").join(which));
        let (options, prefix) = (options.clone(), prefix.to_owned());
        let place = options.shown();
        let waits = settings.waits;
        let pump: MakeBroker =
            Arc::new(move || Ok(Arc::new(RedisBroker::new(Link::new(options.clone())?, &prefix).waiting(waits))));
        let market = crate::commands::market::place(settings)?;
        let link = Some(link);
        Ok(Self {
            broker,
            pump,
            services,
            link,
            claims,
            records,
            snapshot,
            spool,
            kept_dir,
            place,
            embedded: false,
            market,
        })
    }

    /// A SQLite file and folders below the data directory.
    pub(crate) async fn embedded(settings: &Settings) -> anyhow::Result<Self> {
        let dir = &settings.data_dir;
        let file = dir.join("queue.db");
        let broker = SqliteBroker::open(&file, SqliteOptions::default())
            .await
            .with_context(|| format!("the embedded queue {}", file.display()))?;
        let images = Some(settings.images.open(settings)?);
        let services = Services { images, ..file_services(dir, settings.limits.clone()) };
        let broker: SharedBroker = Arc::new(broker);
        let shared = Arc::clone(&broker);
        let broker = Sharded::over(broker, settings.shards.clone());
        Ok(Self {
            pump: Arc::new(move || Ok(Arc::clone(&shared))),
            broker,
            services,
            link: None,
            claims: Arc::new(FileClaims::new(dir)),
            records: match &settings.records_database_url {
                Some(url) => Arc::new(PostgresRecords::new(&url.0)?),
                None => Arc::new(SqliteRecords::new(&dir.join("records.db"))),
            },
            snapshot: None,
            spool: None,
            kept_dir: None,
            place: file.display().to_string(),
            embedded: true,
            market: crate::commands::market::place(settings)?,
        })
    }

    /// Puts jobs on their queues; into the spool while the store is away.
    pub(crate) fn producer(&self) -> Producer {
        let producer = Producer::new(self.broker.clone());
        match &self.spool {
            Some(spool) => producer.spooling(spool.clone()),
            None => producer,
        }
    }

    /// What this process measures on its probes; of the market what it watches, if it does.
    pub(crate) fn measured(&self, watches: bool) -> windlass_api::Measured {
        let images = self.services.images.as_deref().and_then(|images| images.link());
        let links = [("queue", self.link.as_ref()), ("images", images)];
        windlass_api::Measured {
            market: watches.then(|| self.market.clone()),
            services: Some(self.services.clone()),
            spool: self.spool.clone(),
            links: links.into_iter().filter_map(|(name, link)| Some((name, link?.clone()))).collect(),
            more: Some(Arc::new(crate::otlp::metrics)),
        }
    }

    /// Forwards what was spooled here, by this process or one before it, for as long as the process
    /// lives.
    pub(crate) fn forward_spool(&self) {
        if let Some(spool) = &self.spool {
            tokio::spawn(spool.clone().forward(self.broker.clone()));
        }
    }

    /// Lets images be swept and moved back from files for as long as the process lives. Once is
    /// enough; further calls change nothing.
    pub(crate) fn look_after_images(&self) {
        if let Some(images) = &self.services.images {
            Arc::clone(images).begin();
        }
    }

    /// Watches positions where a worker serves the queue of the market's kinds.
    pub(crate) fn watch(&self, queues: &[Queue]) -> Option<Watcher> {
        queues.iter().any(|queue| queue.as_str() == windlass_market::QUEUE).then(|| {
            self.market
                .watch_with(Some(Arc::new(CloseQueue { producer: self.producer(), broker: self.broker.clone() })))
        })
    }

    /// Starts a worker of this process, which serves every shard of these queues; its children are this
    /// program.
    pub(crate) fn worker(
        &self,
        settings: &Settings,
        registry: Registry,
        queues: Vec<Queue>,
        slots: Option<usize>,
    ) -> anyhow::Result<Worker> {
        self.look_after_images();
        let queues = queues.iter().flat_map(|queue| queue.spread(self.broker.shards(queue))).collect();
        let mut options = WorkerOptions::new(queues, isolation(settings));
        options.lease = settings.lease;
        options.health = settings.health;
        options.shares = settings.shares.clone();
        options.priorities = settings.priorities;
        options.kind_slots = settings.kind_slots.clone();
        options.memory_bytes = settings.memory_bytes;
        options.park_after = settings.park_after;
        options.kept_dir = self.kept_dir.clone();
        if let Some(slots) = slots.or(settings.slots) {
            options.slots = slots;
        }
        Worker::start(registry, (self.pump)()?, self.services.clone(), options).context("worker")
    }
}

/// How the children of this process are started: they are this program.
pub(crate) fn isolation(settings: &Settings) -> Isolation {
    let recycle = settings.recycle.clone();
    let (disk_bytes, input_bytes) = (settings.child_disk_bytes, settings.child_input_bytes);
    let mut isolation = Isolation::new(settings.child_program.clone(), &[crate::CHILD_ARG]);
    // A child knows no settings, and reads the font before it is confined.
    isolation.args.extend(settings.images.font.as_ref().map(|path| path.as_os_str().to_owned()));
    Isolation { recycle, disk_bytes, input_bytes, ..isolation }
}

/// The queues to serve: asked for, else from the settings, else those of all kinds.
pub(crate) fn queues(asked: &[Queue], settings: &Settings, registry: &Registry) -> anyhow::Result<Vec<Queue>> {
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    if !settings.queues.is_empty() {
        return Ok(settings.queues.clone());
    }
    let mut queues = registry.specs().map(|spec| Queue::new(spec.queue)).collect::<Result<Vec<_>, _>>()?;
    queues.sort();
    queues.dedup();
    Ok(queues)
}

/// Waits for SIGTERM or SIGINT, once.
pub(crate) struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            term: signal(SignalKind::terminate()).context("SIGTERM")?,
            int: signal(SignalKind::interrupt()).context("SIGINT")?,
        })
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Runs a worker until a signal, then drains it; a second signal ends the grace at once.
pub(crate) async fn work_until_signal(
    worker: &mut Worker,
    signals: &mut Signals,
    settings: &Settings,
) -> anyhow::Result<()> {
    let told = crate::systemd::tell(Some(worker.health()));
    tokio::select! {
        ended = worker.wait() => return ended.context("worker"),
        signal = signals.next() => {
            tracing::info!(signal, grace_s = settings.grace.as_secs(), "draining: no new jobs; a second signal stops at once");
        }
    }
    told.stopping();
    worker.drain(settings.grace);
    tokio::select! {
        ended = worker.wait() => ended.context("worker")?,
        signal = signals.next() => {
            tracing::warn!(signal, "stopping at once: running jobs are given back");
            worker.drain(std::time::Duration::ZERO);
            worker.wait().await.context("worker")?;
        }
    }
    tracing::info!("drained");
    Ok(())
}
