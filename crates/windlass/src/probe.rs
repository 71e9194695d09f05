//! Kinds that try a deployment out: they do nothing, sleep, fail or crash on request.
//!
//! An operator sees with them how a queue, its workers and its alarms behave before real work
//! depends on it.

mod crash;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::{Done, Outcome, Violation};
use windlass_worker::schemars::JsonSchema;
use windlass_worker::{InlineKind, Inputs, IsolatedKind, KindSpec, Registry, RunContext, schema_of};

const QUEUE: &str = "probe";

pub(crate) fn register(registry: &mut Registry) {
    registry
        .inline(Noop)
        .inline(Sleep)
        .inline(Fail)
        .inline(Block)
        .inline(Parents)
        .isolated(IsolatedNoop)
        .isolated(Cacheable)
        .isolated(Memory)
        .isolated(crash::Crash);
}

/// `probe.noop`: any args, no result.
struct Noop;

#[async_trait]
impl InlineKind for Noop {
    type Args = serde::de::IgnoredAny;

    fn spec(&self) -> KindSpec {
        KindSpec { queue: QUEUE, ..KindSpec::new("probe.noop", "does nothing") }
    }
    fn check(&self, _: &Self::Args) -> Vec<Violation> {
        Vec::new()
    }
    async fn run(&self, _: Self::Args, _: &dyn RunContext) -> Outcome {
        Outcome::Done(Done::default())
    }
}

/// `probe.parents`: any args; answers how the jobs it depends on have ended, and with what.
struct Parents;

#[async_trait]
impl InlineKind for Parents {
    type Args = serde::de::IgnoredAny;

    fn spec(&self) -> KindSpec {
        KindSpec { queue: QUEUE, ..KindSpec::new("probe.parents", "answers what the jobs it depends on have left") }
    }
    async fn run(&self, _: Self::Args, ctx: &dyn RunContext) -> Outcome {
        let parents = match ctx.parents().await {
            Ok(parents) => parents,
            Err(error) => return Outcome::Retry { after: None, error },
        };
        let parents: Vec<Value> = parents.into_iter().map(parent).collect();
        Outcome::Done(Done { value: json!({ "parents": parents }), ..Done::default() })
    }
}

fn parent(parent: windlass_worker::Parent) -> Value {
    let value = parent.result.map(|result| result.value);
    json!({ "id": parent.id, "state": parent.state, "value": value })
}

/// `probe.sleep`: `{"ms": 0–3,600,000}`.
struct Sleep;

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "windlass_worker::schemars")]
#[serde(deny_unknown_fields)]
struct SleepArgs {
    #[schemars(range(max = 3_600_000))]
    ms: u64,
}

#[async_trait]
impl InlineKind for Sleep {
    type Args = SleepArgs;

    fn spec(&self) -> KindSpec {
        let timeout = Duration::from_secs(2 * 3600);
        KindSpec { queue: QUEUE, timeout, ..KindSpec::new("probe.sleep", "waits args.ms and reports progress") }
    }
    fn schema(&self) -> Option<Value> {
        schema_of::<SleepArgs>()
    }
    fn check(&self, args: &SleepArgs) -> Vec<Violation> {
        match args.ms {
            0..=3_600_000 => Vec::new(),
            ms => vec![Violation::new("/ms", "out_of_range", format!("{ms}; 0 to 3600000 is allowed"))],
        }
    }
    async fn run(&self, args: SleepArgs, ctx: &dyn RunContext) -> Outcome {
        let step = Duration::from_millis(args.ms.div_ceil(20).max(1));
        for part in 0..20_u8 {
            ctx.progress(f32::from(part) * 5.0, "sleeping");
            tokio::time::sleep(step).await;
        }
        Outcome::Done(Done { value: json!({ "slept_ms": args.ms }), ..Done::default() })
    }
}

/// `probe.fail`: `{"how": "retry" | "fatal" | "panic", "times": n}`; it works from run n + 1 on.
struct Fail;

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "windlass_worker::schemars")]
#[serde(deny_unknown_fields)]
struct FailArgs {
    how: How,
    #[serde(default = "always")]
    times: u32,
}

const fn always() -> u32 {
    u32::MAX
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "windlass_worker::schemars")]
#[serde(rename_all = "snake_case")]
enum How {
    Retry,
    Fatal,
    Panic,
}

#[async_trait]
impl InlineKind for Fail {
    type Args = FailArgs;

    fn spec(&self) -> KindSpec {
        KindSpec { queue: QUEUE, ..KindSpec::new("probe.fail", "fails as args.how says, args.times times") }
    }
    fn schema(&self) -> Option<Value> {
        schema_of::<FailArgs>()
    }
    fn check(&self, _: &FailArgs) -> Vec<Violation> {
        Vec::new()
    }
    async fn run(&self, args: FailArgs, ctx: &dyn RunContext) -> Outcome {
        if ctx.attempt() > args.times {
            return Outcome::Done(Done { value: json!({ "worked_at_run": ctx.attempt() }), ..Done::default() });
        }
        match args.how {
            How::Retry => Outcome::retry("probe", format!("run {} fails as asked", ctx.attempt())),
            How::Fatal => Outcome::fatal("probe", "fails for good as asked"),
            How::Panic => panic!("panics as asked"),
        }
    }
}

/// `probe.block`: `{"ms": 0–60,000}`; holds a thread of the runtime, as no inline kind should.
struct Block;

#[async_trait]
impl InlineKind for Block {
    type Args = SleepArgs;

    fn spec(&self) -> KindSpec {
        KindSpec { queue: QUEUE, ..KindSpec::new("probe.block", "blocks a thread of the worker for args.ms") }
    }
    fn schema(&self) -> Option<Value> {
        schema_of::<SleepArgs>()
    }
    fn check(&self, args: &SleepArgs) -> Vec<Violation> {
        match args.ms {
            0..=60_000 => Vec::new(),
            ms => vec![Violation::new("/ms", "out_of_range", format!("{ms}; 0 to 60000 is allowed"))],
        }
    }
    async fn run(&self, args: SleepArgs, _: &dyn RunContext) -> Outcome {
        std::thread::sleep(Duration::from_millis(args.ms));
        Outcome::Done(Done { value: json!({ "blocked_ms": args.ms }), ..Done::default() })
    }
}

/// `probe.isolated_noop`: any args; answers how often its child has run it, and what the jobs it depends
/// on have left, if there are some.
struct IsolatedNoop;

impl IsolatedKind for IsolatedNoop {
    type Args = serde::de::IgnoredAny;

    fn spec(&self) -> KindSpec {
        KindSpec { queue: QUEUE, ..KindSpec::new("probe.isolated_noop", "does nothing, in a child process") }
    }
    fn check(&self, _: &Self::Args) -> Vec<Violation> {
        Vec::new()
    }
    fn inputs(&self, _: &Self::Args) -> Inputs {
        Inputs::default()
    }
    fn run(&self, _: Self::Args, _: &Path, ctx: &dyn RunContext) -> Outcome {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let runs = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        let mut value = json!({ "child": std::process::id(), "runs_of_child": runs });
        // They were read before the run.
        let parents = ctx.parents().now_or_never().and_then(Result::ok).unwrap_or_default();
        if !parents.is_empty() {
            value["parents"] = parents.into_iter().map(parent).collect();
        }
        Outcome::Done(Done { value, ..Done::default() })
    }
}

/// `probe.cacheable`: `{"ms": 0–60,000, "key"}`; what comes out is kept for a day, so that of
/// equal jobs one runs.
struct Cacheable;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheableArgs {
    ms: u64,
    /// Any text, to make jobs differ.
    #[serde(default)]
    key: String,
}

impl IsolatedKind for Cacheable {
    type Args = CacheableArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: QUEUE,
            cache_ttl: Some(KindSpec::CACHE_TTL),
            ..KindSpec::new("probe.cacheable", "takes args.ms in a child process; equal jobs run once")
        }
    }
    fn check(&self, args: &CacheableArgs) -> Vec<Violation> {
        match args.ms {
            0..=60_000 => Vec::new(),
            ms => vec![Violation::new("/ms", "out_of_range", format!("{ms}; 0 to 60000 is allowed"))],
        }
    }
    fn inputs(&self, _: &CacheableArgs) -> Inputs {
        Inputs::default()
    }
    fn run(&self, args: CacheableArgs, _: &Path, ctx: &dyn RunContext) -> Outcome {
        ctx.progress(0.0, "working");
        std::thread::sleep(Duration::from_millis(args.ms));
        let value = json!({ "key": args.key, "child": std::process::id() });
        Outcome::Done(Done { value, ..Done::default() })
    }
}

/// `probe.memory`: `{"mib": 0–65,536, "ms": 0–60,000}`; declares that much memory as its peak, and
/// sleeps in a child without using it.
struct Memory;

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "windlass_worker::schemars")]
#[serde(deny_unknown_fields)]
struct MemoryArgs {
    #[schemars(range(max = 65_536))]
    mib: u64,
    #[schemars(range(max = 60_000))]
    ms: u64,
}

impl IsolatedKind for Memory {
    type Args = MemoryArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: QUEUE,
            ..KindSpec::new("probe.memory", "declares args.mib MiB and waits args.ms, in a child")
        }
    }
    fn schema(&self) -> Option<Value> {
        schema_of::<MemoryArgs>()
    }
    fn check(&self, args: &MemoryArgs) -> Vec<Violation> {
        let bound = |path, found, most: u64| {
            let wrong = || Violation::new(path, "out_of_range", format!("{found}; 0 to {most} is allowed"));
            (found > most).then(wrong)
        };
        [bound("/mib", args.mib, 65_536), bound("/ms", args.ms, 60_000)].into_iter().flatten().collect()
    }
    fn inputs(&self, args: &MemoryArgs) -> Inputs {
        Inputs { peak_memory_bytes: args.mib.saturating_mul(1024 * 1024), ..Inputs::default() }
    }
    fn run(&self, args: MemoryArgs, _: &Path, _: &dyn RunContext) -> Outcome {
        std::thread::sleep(Duration::from_millis(args.ms));
        Outcome::Done(Done { value: json!({ "declared_mib": args.mib }), ..Done::default() })
    }
}
