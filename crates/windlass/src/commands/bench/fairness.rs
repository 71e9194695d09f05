//! How long quiet tenants wait beside one that floods the queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use windlass_jobs::{Done, NewJob, Outcome};
use windlass_worker::{InlineKind, KindSpec, Registry, RunContext};

use super::{BenchNoop, LANES, LanesArg, PATIENCE, Setup, jobs, stop};

/// The time between two jobs of quiet tenants.
const QUIET_EVERY: Duration = Duration::from_millis(1);

/// Does nothing, and says which it was and when.
struct Quiet(mpsc::UnboundedSender<(usize, Instant)>);

#[async_trait]
impl InlineKind for Quiet {
    type Args = usize;

    fn spec(&self) -> KindSpec {
        KindSpec::new("bench.quiet", "does nothing beside a flood")
    }
    async fn run(&self, n: usize, _: &dyn RunContext) -> Outcome {
        let _ = self.0.send((n, Instant::now()));
        Outcome::Done(Done::default())
    }
}

impl Setup<'_> {
    /// From the enqueue to the start of jobs of quiet tenants, in turn, while one tenant's jobs
    /// fill the queue.
    pub(super) async fn fairness(&self) -> anyhow::Result<Histogram<u64>> {
        let mut flood = jobs(self.args.jobs, Some(LanesArg::Tenants))?;
        flood.iter_mut().for_each(|job| job.options.tenant = Some("lane-0".to_owned()));
        self.broker().enqueue(&self.queue, &flood).await?;
        let (starts, mut started) = mpsc::unbounded_channel();
        let mut registry = Registry::new();
        registry.inline(BenchNoop { starts: None }).inline(Quiet(starts));
        let mut worker =
            self.stores.worker(self.settings, registry, vec![self.queue.clone()], Some(self.args.slots))?;
        let mut sent = Vec::new();
        let mut every = tokio::time::interval(QUIET_EVERY);
        while self.counts().await?.pending > 0 && (sent.len() as u64) < LANES * 10 {
            every.tick().await;
            let mut job = NewJob::new("bench.quiet", &sent.len())?;
            job.options.tenant = Some(format!("lane-{}", 1 + sent.len() as u64 % (LANES - 1)));
            let broker = Arc::clone(self.broker());
            sent.push(Instant::now());
            broker.enqueue(&self.queue, &[job]).await?;
        }
        let mut histogram = Histogram::new(3)?;
        for _ in 0..sent.len() {
            let start = tokio::time::timeout(PATIENCE, started.recv()).await.context("a quiet job did not start")?;
            let (n, at) = start.context("the worker is gone")?;
            histogram.record(u64::try_from(at.duration_since(sent[n]).as_micros()).unwrap_or(u64::MAX))?;
        }
        while self.counts().await?.unfinished() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop(&mut worker).await?;
        ensure!(!histogram.is_empty(), "the flood was over before a quiet job came");
        Ok(histogram)
    }
}
