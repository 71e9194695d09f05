//! The child's side of an isolated run: limits itself, reads one job, runs it, says how it
//! ended, and is gone.
//!
//! Called before any thread or runtime exists.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};
use windlass_jobs::{Outcome, Progress};

use crate::frame::{FromChild, MAX_FRAME_BYTES, ToChild, encode};
use crate::kind::RunContext;
use crate::registry::Registry;
use crate::run::panic_text;

/// Address space a child has beside what its kind asked for: the program itself, stacks, the
/// allocator's slack. Measured on a debug build: 60 MiB for the program.
const BASE_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// The largest file a child may write.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// How often progress is said at most.
const SAY_EVERY: Duration = Duration::from_millis(50);

/// Runs one job given on standard input and writes frames to standard output.
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
    rustix::thread::set_no_new_privs(true)?;
    let frames = take_stdout()?;
    let request = read_request()?;
    limit(&request)?;
    let context = ChildContext {
        frames: Mutex::new((frames, None)),
        deadline: Instant::now() + Duration::from_millis(request.remaining_ms),
        attempt: request.attempt,
    };
    let run = AssertUnwindSafe(|| match registry.get(&request.kind) {
        Some(kind) => kind.run_isolated(&request.args, &request.dir, &context),
        None => Outcome::fatal("unknown_kind", format!("the child does not know kind {}", request.kind)),
    });
    let outcome =
        std::panic::catch_unwind(run).unwrap_or_else(|panic| Outcome::retry("panicked", panic_text(panic.as_ref())));
    context.write(&FromChild::Outcome(outcome))
}

/// Keeps standard output for frames and sends what handlers print to the error output.
fn take_stdout() -> std::io::Result<File> {
    let frames = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok(File::from(frames))
}

fn read_request() -> std::io::Result<ToChild> {
    let mut stdin = std::io::stdin().lock();
    let mut length = [0; 4];
    stdin.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(std::io::Error::other("the request is too long"));
    }
    let mut bytes = vec![0; length];
    stdin.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn limit(request: &ToChild) -> std::io::Result<()> {
    let set = |resource, limit: u64| {
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
    };
    set(Resource::As, BASE_MEMORY_BYTES.saturating_add(request.peak_memory_bytes.saturating_mul(2)))?;
    set(Resource::Cpu, request.remaining_ms / 1000 + 2)?;
    set(Resource::Fsize, MAX_FILE_BYTES)?;
    set(Resource::Nofile, 64)?;
    set(Resource::Core, 0)?;
    Ok(())
}

struct ChildContext {
    /// Where frames go, and when progress was last said.
    frames: Mutex<(File, Option<Instant>)>,
    deadline: Instant,
    attempt: u32,
}

impl ChildContext {
    fn write(&self, frame: &FromChild) -> std::io::Result<()> {
        let bytes = encode(frame)?;
        let mut frames = self.frames.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        frames.0.write_all(&bytes)
    }
}

impl RunContext for ChildContext {
    fn progress(&self, percent: f32, message: &str) {
        {
            let mut frames = self.frames.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if frames.1.is_some_and(|at| at.elapsed() < SAY_EVERY) {
                return;
            }
            frames.1 = Some(Instant::now());
        }
        // A parent that is gone takes this process with it.
        let _ = self.write(&FromChild::Progress(Progress::new(percent, message)));
    }

    fn cancelled(&self) -> bool {
        self.remaining().is_zero()
    }

    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }
}
