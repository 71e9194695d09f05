//! The child's side of isolated runs: confines itself, then runs one job after the other, says
//! how each ended, and is gone when the parent has no more.
//!
//! Called before any thread or runtime exists. It reads its parent only between jobs, so a kill
//! is the only way to stop a run.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rustix::process::{Resource, Rlimit, Signal};
use windlass_jobs::{Outcome, Progress, RunError};

use crate::frame::{END_OF_WORDS, FromChild, ToChild, Wear, encode, read_request};
use crate::kind::{Parent, RunContext};
use crate::registry::Registry;
use crate::run::panic_text;
use crate::sandbox;
use crate::trace::{Stage, Stages};

/// Address space a child has beside what its kind asked for: the program itself, stacks, the
/// allocator's slack. Measured on a debug build: 60 MiB for the program.
const BASE_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// The most address space any job can have.
const MAX_MEMORY_BYTES: u64 = 64 * 1024 * 1024 * 1024;
/// The largest file a child may write.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Files a child may have open.
const MAX_FILES: u64 = 64;
/// Processor time a job has beside its time on the clock, in seconds: it may use several
/// processors for a moment, and the limit counts whole seconds.
const CPU_SLACK_S: u64 = 2;
/// How often progress is said at most.
const SAY_EVERY: Duration = Duration::from_millis(50);

/// Runs the jobs given on standard input and writes frames to standard output.
///
/// Anything a handler prints goes to the error output. The process dies with its parent.
#[must_use]
pub fn child_main(registry: &Registry) -> ExitCode {
    match serve(registry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "child: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(registry: &Registry) -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    close_inherited();
    let mut requests = take_stdin()?;
    let frames = Mutex::new((take_stdout()?, None));
    // A machine that runs out of memory ends a child before its worker. Raising needs no right.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    // Opened while it can still be.
    let mut status = File::open("/proc/self/status").ok();
    limit(Resource::Fsize, MAX_FILE_BYTES)?;
    limit(Resource::Nofile, MAX_FILES)?;
    limit(Resource::Core, 0)?;
    limit(Resource::As, MAX_MEMORY_BYTES)?;
    let sandbox = sandbox::confine(Path::new("."));
    write(&frames, &FromChild::Hello(sandbox))?;
    while let Some(request) = read_request(&mut requests)? {
        write(&frames, &FromChild::Begun)?;
        limit_job(&request)?;
        std::env::set_current_dir(&request.dir)?;
        let (outcome, panicked, stages) = run(registry, &request, &frames);
        let wear = Wear { panicked, ..wear(status.as_mut()) };
        // A handler that closed it is replaced with its child.
        let _ = std::io::stderr().write_all(END_OF_WORDS);
        match encode(&FromChild::Answer { outcome, wear, stages }) {
            Ok(bytes) => write_bytes(&frames, &bytes)?,
            Err(bytes) => write(&frames, &FromChild::TooLarge { bytes })?,
        }
    }
    Ok(())
}

fn run(registry: &Registry, request: &ToChild, frames: &Frames) -> (Outcome, bool, Vec<Stage>) {
    let now = Instant::now();
    let context = ChildContext {
        frames,
        deadline: now + Duration::from_millis(request.remaining_ms),
        soft: now + Duration::from_millis(request.soft_ms),
        attempt: request.attempt,
        parents: &request.parents,
        stages: request.traced.then(Mutex::default),
    };
    let run = AssertUnwindSafe(|| match registry.get(&request.kind) {
        Some(kind) => kind.run_isolated(&request.args, &request.dir, &context),
        None => Outcome::fatal("unknown_kind", format!("the child does not know kind {}", request.kind)),
    });
    let (outcome, panicked) = match std::panic::catch_unwind(run) {
        Ok(outcome) => (outcome, false),
        Err(panic) => (Outcome::retry("panicked", panic_text(panic.as_ref())), true),
    };
    let stages = context.stages.map(|stages| stages.into_inner().unwrap_or_else(PoisonError::into_inner));
    (outcome, panicked, stages.map(Stages::end).unwrap_or_default())
}

/// Closes whatever the worker's own parent left open; ours are marked to close by themselves.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd);
    }
}

/// Keeps standard input for requests; handlers find it empty.
fn take_stdin() -> std::io::Result<File> {
    let requests = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(File::from(requests))
}

/// Keeps standard output for frames and sends what handlers print to the error output.
fn take_stdout() -> std::io::Result<File> {
    let frames = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok(File::from(frames))
}

/// Lowers the hard limit, and the soft one with it.
fn limit(resource: Resource, value: u64) -> std::io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum.map_or(value, |hard| hard.min(value));
    let limit = Rlimit { current: Some(hard), maximum: Some(hard) };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

/// Sets a soft limit, which the next job may raise again up to the hard one.
fn limit_soft(resource: Resource, value: u64) -> std::io::Result<()> {
    let maximum = rustix::process::getrlimit(resource).maximum;
    let current = maximum.map_or(value, |hard| hard.min(value));
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(current), maximum })?)
}

fn limit_job(request: &ToChild) -> std::io::Result<()> {
    let memory = BASE_MEMORY_BYTES.saturating_add(request.peak_memory_bytes.saturating_mul(2));
    limit_soft(Resource::As, memory)?;
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let used_s = u64::try_from(used.tv_sec).unwrap_or(0);
    limit_soft(Resource::Cpu, used_s + request.remaining_ms.div_ceil(1000) + CPU_SLACK_S)
}

/// What the kernel says about this process.
fn wear(status: Option<&mut File>) -> Wear {
    let mut text = String::new();
    if let Some(status) = status {
        let _ = status.rewind().and_then(|()| status.read_to_string(&mut text));
    }
    wear_of(&text)
}

/// Reads `/proc/self/status` (proc_pid_status(5)).
fn wear_of(status: &str) -> Wear {
    let number = |name: &str| -> Option<u64> {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Wear {
        peak_rss_bytes: number("VmHWM:").unwrap_or(0) * 1024,
        threads: number("Threads:").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        panicked: false,
    }
}

/// Where frames go, and when progress was last said.
type Frames = Mutex<(File, Option<Instant>)>;

fn write(frames: &Frames, frame: &FromChild) -> std::io::Result<()> {
    let bytes = encode(frame).map_err(|length| std::io::Error::other(format!("a frame of {length} bytes")))?;
    write_bytes(frames, &bytes)
}

fn write_bytes(frames: &Frames, bytes: &[u8]) -> std::io::Result<()> {
    let mut frames = frames.lock().unwrap_or_else(PoisonError::into_inner);
    frames.0.write_all(bytes)
}

struct ChildContext<'a> {
    frames: &'a Frames,
    deadline: Instant,
    soft: Instant,
    attempt: u32,
    parents: &'a [Parent],
    /// None where nobody wants them.
    stages: Option<Mutex<Stages>>,
}

impl RunContext for ChildContext<'_> {
    fn progress(&self, percent: f32, message: &str) {
        {
            let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            if frames.1.is_some_and(|at| at.elapsed() < SAY_EVERY) {
                return;
            }
            frames.1 = Some(Instant::now());
        }
        // A parent that is gone takes this process with it.
        let _ = write(self.frames, &FromChild::Progress(Progress::new(percent, message)));
    }

    fn stage(&self, name: &'static str) {
        if let Some(stages) = &self.stages {
            stages.lock().unwrap_or_else(PoisonError::into_inner).begin(name);
        }
    }

    fn cancelled(&self) -> bool {
        self.remaining().is_zero()
    }

    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn over_soft_limit(&self) -> bool {
        Instant::now() >= self.soft
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }

    fn parents(&self) -> BoxFuture<'_, Result<Vec<Parent>, RunError>> {
        Box::pin(std::future::ready(Ok(self.parents.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let status = "Name:\twindlass\nVmPeak:\t  99999 kB\nVmHWM:\t    2048 kB\nThreads:\t3\n";
        assert_eq!(wear_of(status), Wear { peak_rss_bytes: 2 * 1024 * 1024, threads: 3, panicked: false });
        assert_eq!(wear_of("nothing of it"), Wear::default());
    }
}
