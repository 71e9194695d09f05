//! `windlass bench queue`: what the queue can do on this machine, with jobs that do nothing.
//!
//! It checks itself and prints no figure when a job was lost, run twice or left behind.

mod fairness;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use windlass_broker::redis::RedisBroker;
use windlass_broker::sqlite::{SqliteBroker, SqliteOptions};
use windlass_broker::{Sharded, SharedBroker};
use windlass_jobs::command::{Counts, KEEP_TERMINAL};
use windlass_jobs::{Done, JobId, Limits, NewJob, Outcome, Queue, State, Ulid, Violation, new_ulid};
use windlass_redis::{FromRedisValue, Link, cmd};
use windlass_worker::{InlineKind, KindSpec, Registry, RunContext, Worker};

use super::report;
use crate::cli::{BenchQueue, LanesArg};
use crate::runtime::Stores;
use crate::settings::Settings;

/// Lanes that jobs take turns in.
const LANES: u64 = 1_000;
/// Jobs enqueued one after the other.
const ONE_BY_ONE: u64 = 5_000;
/// Jobs run in a child, and in the worker beside it.
const ISOLATED: u32 = 500;
/// The longest a drain may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn run(settings: &Settings, args: &BenchQueue, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut settings = settings.clone();
    // A prefix or a folder of its own: the bench neither sees nor touches anyone's jobs.
    let tag = new_ulid().to_string().to_ascii_lowercase();
    settings.queue_prefix = format!("wlbench-{}", &tag[16..]);
    let scratch = settings.data_dir.join(format!("bench-{tag}"));
    settings.data_dir.clone_from(&scratch);
    let bench = Setup::open(&settings, args).await?;
    let measured = bench.measure(as_json).await;
    bench.clean().await;
    if settings.redis.is_none() {
        let _ = tokio::fs::remove_dir_all(&scratch).await;
    }
    let figures = measured?;
    if as_json {
        report::json_line(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

struct Setup<'a> {
    settings: &'a Settings,
    args: &'a BenchQueue,
    stores: Stores,
    link: Option<Link>,
    queue: Queue,
    versions: BTreeMap<&'static str, String>,
}

impl<'a> Setup<'a> {
    async fn open(settings: &'a Settings, args: &'a BenchQueue) -> anyhow::Result<Self> {
        let mut stores = Stores::open(settings).await?;
        let mut versions = BTreeMap::from([("windlass", env!("CARGO_PKG_VERSION").to_owned())]);
        versions.insert("build", if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned());
        let link = match &settings.redis {
            Some(options) => {
                let link = Link::new(options.clone())?;
                // Every job of the bench is kept, so that every one can be checked.
                let keep = usize::try_from(args.jobs).unwrap_or(usize::MAX).max(KEEP_TERMINAL);
                let (options, prefix) = (options.clone(), settings.queue_prefix.clone());
                stores.broker = Arc::new(RedisBroker::keeping(link.clone(), &prefix, keep));
                stores.pump =
                    Arc::new(move || Ok(Arc::new(RedisBroker::keeping(Link::new(options.clone())?, &prefix, keep))));
                versions.insert("redis", info_field(&link, "server", "redis_version").await?);
                versions.insert("aof", info_field(&link, "persistence", "aof_enabled").await?);
                Some(link)
            }
            None => {
                let keep = usize::try_from(args.jobs).unwrap_or(usize::MAX).max(KEEP_TERMINAL);
                let file = settings.data_dir.join("queue.db");
                let broker = SqliteBroker::open(&file, SqliteOptions { keep, ..SqliteOptions::default() }).await?;
                stores.broker = Arc::new(broker.clone());
                stores.pump = Arc::new(move || Ok(Arc::new(broker.clone())));
                None
            }
        };
        let queue = Queue::new("bench")?;
        if let Some(shards) = args.shards {
            stores.broker = Sharded::over(stores.broker, BTreeMap::from([(queue.clone(), shards)]));
        }
        Ok(Self { settings, args, stores, link, queue, versions })
    }

    fn broker(&self) -> &SharedBroker {
        &self.stores.broker
    }

    async fn measure(&self, quiet: bool) -> anyhow::Result<Value> {
        let say = |text: std::fmt::Arguments<'_>| {
            if !quiet {
                report::line(text);
            }
        };
        let versions: Vec<String> = self.versions.iter().map(|(k, v)| format!("{k} {v}")).collect();
        say(format_args!(
            "{} · {} jobs · {} slots · {}",
            self.broker().engine(),
            self.args.jobs,
            self.args.slots,
            versions.join(" · ")
        ));

        if self.args.lanes == Some(LanesArg::Concurrency) {
            let limits = Limits { key_concurrency: Some(4), ..Limits::default() };
            self.broker().set_limits(&self.queue, &limits).await?;
        }
        let one_per_s = self.enqueue_one_by_one().await?;
        say(format_args!("enqueue, one awaited after the other  {one_per_s:>10.0} jobs/s"));
        let before = self.memory().await?;
        let (ids, bulk_per_s) = self.enqueue_bulk().await?;
        say(format_args!("enqueue, bulk                         {bulk_per_s:>10.0} jobs/s"));
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let bytes_per_job = self.memory().await?.saturating_sub(before) as f64 / self.args.jobs as f64;
        say(format_args!("kept per waiting job                  {bytes_per_job:>10.0} bytes"));
        let drain_per_s = self.drain().await?;
        say(format_args!("drain                                 {drain_per_s:>10.0} jobs/s"));
        self.check(&ids).await?;
        let quiet = if self.args.lanes == Some(LanesArg::Tenants) { Some(self.fairness().await?) } else { None };
        let latency = self.latency().await?;
        let ms = |q: f64| us_to_ms(latency.value_at_quantile(q));
        let (p50, p99, max) = (ms(0.5), ms(0.99), us_to_ms(latency.max()));
        say(format_args!("enqueue to start, idle                p50 {p50:.2} ms · p99 {p99:.2} ms · max {max:.2} ms"));
        if let Some(quiet) = &quiet {
            let (p50, p99) = (us_to_ms(quiet.value_at_quantile(0.5)), us_to_ms(quiet.value_at_quantile(0.99)));
            say(format_args!(
                "enqueue to start, beside a flood      p50 {p50:.2} ms · p99 {p99:.2} ms · {} of 999 quiet tenants",
                quiet.len()
            ));
        }
        let isolated_ms = self.isolation().await?;
        say(format_args!("a child process beside, warm          {isolated_ms:>10.3} ms/job"));
        Ok(json!({
            "isolation_ms_per_job": isolated_ms,
            "engine": self.broker().engine(),
            "jobs": self.args.jobs,
            "slots": self.args.slots,
            "enqueue_one_per_s": one_per_s.round(),
            "enqueue_bulk_per_s": bulk_per_s.round(),
            "drain_per_s": drain_per_s.round(),
            "bytes_per_job": bytes_per_job.round(),
            "latency_ms": { "p50": p50, "p99": p99, "max": max },
            "shards": self.args.shards,
            "lanes": self.args.lanes.map(|lanes| format!("{lanes:?}").to_lowercase()),
            "beside_a_flood_p99_ms": quiet.map(|quiet| us_to_ms(quiet.value_at_quantile(0.99))),
            "versions": self.versions,
        }))
    }

    /// Enqueues [`ONE_BY_ONE`] jobs, and drains them again so that memory is counted from zero.
    async fn enqueue_one_by_one(&self) -> anyhow::Result<f64> {
        let jobs = jobs(ONE_BY_ONE, self.args.lanes)?;
        let (broker, queue) = (Arc::clone(self.broker()), self.queue.clone());
        // On the runtime's own threads, where a web service's handlers are.
        let producing = tokio::spawn(async move {
            let start = Instant::now();
            for job in &jobs {
                broker.enqueue(&queue, std::slice::from_ref(job)).await?;
            }
            Ok::<_, windlass_broker::Error>(start.elapsed())
        });
        let rate = per_s(ONE_BY_ONE, producing.await??);
        self.drain().await?;
        Ok(rate)
    }

    /// All jobs are waiting when this returns.
    async fn enqueue_bulk(&self) -> anyhow::Result<(Vec<Ulid>, f64)> {
        let jobs = jobs(self.args.jobs, self.args.lanes)?;
        let ids = jobs.iter().map(|job| job.ulid).collect();
        let start = Instant::now();
        // Four producers, as a web service with four threads would be.
        let mut tasks = tokio::task::JoinSet::new();
        let part = jobs.len().div_ceil(4);
        let parts: Vec<Vec<NewJob>> = jobs.chunks(part).map(<[NewJob]>::to_vec).collect();
        for part in parts {
            let (broker, queue) = (Arc::clone(self.broker()), self.queue.clone());
            tasks.spawn(async move { broker.enqueue(&queue, &part).await.map(|_| ()) });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok((ids, per_s(self.args.jobs, start.elapsed())))
    }

    async fn drain(&self) -> anyhow::Result<f64> {
        let before = self.counts().await?;
        let waiting = before.pending;
        let start = Instant::now();
        let mut worker = self.worker(None)?;
        let elapsed = loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if self.counts().await?.unfinished() == 0 {
                break start.elapsed();
            }
            ensure!(start.elapsed() < PATIENCE, "the drain did not end: {:?}", self.counts().await?);
        };
        stop(&mut worker).await?;
        Ok(per_s(waiting, elapsed))
    }

    /// Every id terminal once, in its first run; no lease left; fields read back.
    async fn check(&self, ids: &[Ulid]) -> anyhow::Result<()> {
        let counts = self.counts().await?;
        ensure!(counts.unfinished() == 0 && counts.failure_total == 0, "jobs were left behind: {counts:?}");
        ensure!(counts.success_total == counts.enqueued_total, "successes differ from jobs: {counts:?}");
        for ulid in ids.iter().step_by((ids.len() / 10_000).max(1)) {
            let id = JobId::new(*ulid, self.queue.clone());
            let record = self.broker().get(&id).await?.with_context(|| format!("job {id} is lost"))?;
            if record.state != State::Success
                || record.epoch != 1
                || record.kind != "bench.noop"
                || !record.args.contains("padding")
            {
                bail!("job {id} is not as it should be: {record:?}");
            }
        }
        Ok(())
    }

    /// From just before the enqueue call to the start of the handler, on an idle worker.
    async fn latency(&self) -> anyhow::Result<Histogram<u64>> {
        let (starts, mut started) = mpsc::unbounded_channel();
        let mut worker = self.worker(Some(starts))?;
        let mut histogram = Histogram::new(3)?;
        for sample in 0..self.args.samples + 20 {
            let job = jobs(1, self.args.lanes)?;
            // Idle again: the claim that found nothing has come back.
            tokio::time::sleep(Duration::from_millis(3)).await;
            let start = Instant::now();
            self.broker().enqueue(&self.queue, &job).await?;
            let at = tokio::time::timeout(Duration::from_secs(30), started.recv())
                .await
                .context("a job did not start in 30 s")?;
            let took = at.context("the worker is gone")?.duration_since(start);
            // The first ones warm caches and connections up.
            if sample >= 20 {
                histogram.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))?;
            }
        }
        stop(&mut worker).await?;
        Ok(histogram)
    }

    /// What a job pays for running in a child that is there already: the same drain through one
    /// slot, in a child and in the worker.
    async fn isolation(&self) -> anyhow::Result<f64> {
        let mut per_job_ms = [0.0; 2];
        for (kind, ms) in ["probe.noop", "probe.isolated_noop"].into_iter().zip(&mut per_job_ms) {
            let mut settings = self.settings.clone();
            settings.recycle.after_jobs = u32::MAX;
            let queues = vec![self.queue.clone()];
            let mut worker = self.stores.worker(&settings, crate::kinds::registry(), queues, Some(1))?;
            // The first ones start the child.
            for n in [10, ISOLATED] {
                let jobs: Vec<NewJob> = (0..n).map(|_| NewJob::new(kind, &json!({}))).collect::<Result<_, _>>()?;
                let start = Instant::now();
                self.broker().enqueue(&self.queue, &jobs).await?;
                while self.counts().await?.unfinished() > 0 {
                    ensure!(start.elapsed() < PATIENCE, "the drain did not end: {:?}", self.counts().await?);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                *ms = start.elapsed().as_secs_f64() * 1000.0 / f64::from(n);
            }
            stop(&mut worker).await?;
        }
        let [inline, isolated] = per_job_ms;
        Ok(isolated - inline)
    }

    fn worker(&self, starts: Option<mpsc::UnboundedSender<Instant>>) -> anyhow::Result<Worker> {
        let mut registry = Registry::new();
        registry.inline(BenchNoop { starts });
        self.stores.worker(self.settings, registry, vec![self.queue.clone()], Some(self.args.slots))
    }

    async fn counts(&self) -> anyhow::Result<Counts> {
        Ok(self.broker().counts(&self.queue).await?)
    }

    /// Bytes the store uses for everything.
    async fn memory(&self) -> anyhow::Result<u64> {
        match &self.link {
            Some(link) => {
                let nodes = link.info("memory").await?;
                let bytes = nodes.iter().map(|node| field_of(node, "used_memory").unwrap_or_default().parse::<u64>());
                Ok(bytes.sum::<Result<u64, _>>()?)
            }
            None => {
                let mut bytes = 0;
                for file in ["queue.db", "queue.db-wal"] {
                    bytes +=
                        tokio::fs::metadata(self.settings.data_dir.join(file)).await.map_or(0, |facts| facts.len());
                }
                Ok(bytes)
            }
        }
    }

    /// Takes the bench's keys off the server. Its names are its own, so a scan meets no one's live path.
    async fn clean(&self) {
        let Some(link) = &self.link else { return };
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(format!("{}:*", self.settings.queue_prefix)).arg("COUNT").arg(1000);
            let Ok(reply) = link.call(&scan).await else { return };
            let Ok((next, keys)) = <(String, Vec<String>)>::from_redis_value(reply) else { return };
            if !keys.is_empty() {
                let mut unlink = cmd("UNLINK");
                keys.iter().for_each(|key| {
                    unlink.arg(key);
                });
                let _ = link.call(&unlink).await;
            }
            if next == "0" {
                return;
            }
            cursor = next;
        }
    }
}

async fn info_field(link: &Link, section: &str, field: &str) -> anyhow::Result<String> {
    let nodes = link.info(section).await?;
    let value = nodes.first().and_then(|node| field_of(node, field));
    Ok(value.with_context(|| format!("INFO {section} without {field}"))?.to_owned())
}

fn field_of<'a>(info: &'a str, field: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
}

async fn stop(worker: &mut Worker) -> anyhow::Result<()> {
    worker.drain(Duration::from_secs(10));
    Ok(worker.wait().await?)
}

/// Jobs with args of 100 bytes, in turn in their lanes.
fn jobs(n: u64, lanes: Option<LanesArg>) -> anyhow::Result<Vec<NewJob>> {
    let args = json!({ "padding": "x".repeat(86) });
    let job = |n: u64| {
        let mut job = NewJob::new("bench.noop", &args)?;
        let key = lanes.map(|_| format!("lane-{}", n % LANES));
        match lanes {
            Some(LanesArg::Tenants) => job.options.tenant = key,
            Some(LanesArg::Concurrency) => job.options.concurrency_key = key,
            Some(LanesArg::Ordering) => job.options.ordering_key = key,
            None => {}
        }
        Ok(job)
    };
    (0..n).map(job).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_s(n: u64, elapsed: Duration) -> f64 {
    n as f64 / elapsed.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn us_to_ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Does nothing, and says when.
struct BenchNoop {
    starts: Option<mpsc::UnboundedSender<Instant>>,
}

#[async_trait]
impl InlineKind for BenchNoop {
    type Args = serde::de::IgnoredAny;

    fn spec(&self) -> KindSpec {
        KindSpec::new("bench.noop", "does nothing")
    }
    fn check(&self, _: &Self::Args) -> Vec<Violation> {
        Vec::new()
    }
    async fn run(&self, _: Self::Args, _: &dyn RunContext) -> Outcome {
        if let Some(starts) = &self.starts {
            let _ = starts.send(Instant::now());
        }
        Outcome::Done(Done::default())
    }
}
