//! Kinds that try a deployment out: they do nothing, sleep, fail or crash on request.
//!
//! An operator sees with them how a queue, its workers and its alarms behave before real work
//! depends on it.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::{Done, Outcome, Violation};
use windlass_worker::{InlineKind, Inputs, IsolatedKind, KindSpec, Registry, RunContext};

const QUEUE: &str = "probe";

pub(crate) fn register(registry: &mut Registry) {
    registry.inline(Noop).inline(Sleep).inline(Fail).isolated(Crash);
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

/// `probe.sleep`: `{"ms": 0–3,600,000}`.
struct Sleep;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SleepArgs {
    ms: u64,
}

#[async_trait]
impl InlineKind for Sleep {
    type Args = SleepArgs;

    fn spec(&self) -> KindSpec {
        let timeout = Duration::from_secs(2 * 3600);
        KindSpec { queue: QUEUE, timeout, ..KindSpec::new("probe.sleep", "waits args.ms and reports progress") }
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailArgs {
    how: How,
    #[serde(default = "always")]
    times: u32,
}

const fn always() -> u32 {
    u32::MAX
}

#[derive(Deserialize)]
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

/// `probe.crash`: `{"how": "panic" | "abort" | "overflow" | "memory" | "loop" | "garbage"}`, in a child.
struct Crash;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CrashArgs {
    how: CrashHow,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum CrashHow {
    Panic,
    Abort,
    Overflow,
    Memory,
    Loop,
    Garbage,
}

impl IsolatedKind for Crash {
    type Args = CrashArgs;

    fn spec(&self) -> KindSpec {
        let timeout = Duration::from_secs(30);
        KindSpec { queue: QUEUE, timeout, ..KindSpec::new("probe.crash", "crashes its child process as args.how says") }
    }
    fn check(&self, _: &CrashArgs) -> Vec<Violation> {
        Vec::new()
    }
    fn inputs(&self, _: &CrashArgs) -> Inputs {
        Inputs { blobs: Vec::new(), peak_memory_bytes: 64 * 1024 * 1024 }
    }
    #[expect(clippy::print_stdout, reason = "shows that what a handler prints does not disturb the frames")]
    fn run(&self, args: CrashArgs, _: &Path, ctx: &dyn RunContext) -> Outcome {
        ctx.progress(10.0, "about to crash");
        match args.how {
            CrashHow::Panic => panic!("panics as asked"),
            CrashHow::Abort => std::process::abort(),
            CrashHow::Overflow => {
                let depth = overflow(0);
                Outcome::Done(Done { value: Value::from(depth), ..Done::default() })
            }
            CrashHow::Memory => {
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 64 * 1024 * 1024]);
                    std::hint::black_box(&all);
                }
            }
            CrashHow::Loop => loop {
                std::hint::black_box(());
            },
            CrashHow::Garbage => {
                println!("this is no frame");
                Outcome::Done(Done { value: json!({ "printed": true }), ..Done::default() })
            }
        }
    }
}

/// Never ends; what it answers keeps the compiler from making a loop of it.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 512]);
    overflow(depth + 1) + frame[511]
}
