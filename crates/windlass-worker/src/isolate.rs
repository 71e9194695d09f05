//! The parent's side of an isolated run: one job told to a child, its frames heard out, its end
//! explained.
//!
//! Whatever the child does – loop, abort, overflow its stack, eat memory, close its pipes – is one
//! failed run.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use windlass_jobs::{Outcome, Progress, Reason, RunError, millis};

use crate::frame::{END_OF_WORDS, FromChild, ToChild, Wear, encode, read_frame};
use crate::kind::Parent;
use crate::policy::Ended;
use crate::pool::Pool;
use crate::recycle::Recycle;
use crate::sandbox::Sandbox;

/// How much of what a child writes to its error output is kept, in bytes: the last of it.
const MAX_STDERR_BYTES: usize = 16 * 1024;
/// How long a child that closed its pipes has to be gone.
const LAST_BREATH: Duration = Duration::from_millis(300);

/// How child processes are started and kept.
#[derive(Debug, Clone)]
pub struct Isolation {
    /// The program: normally this one (`/proc/self/exe`, which an upgrade does not change).
    pub program: PathBuf,
    /// What makes it call [`crate::child_main`].
    pub args: Vec<OsString>,
    /// Where private directories are made; default: the system's temporary directory.
    pub scratch: PathBuf,
    /// When a child is used again.
    pub recycle: Recycle,
    /// What a job may write into its directory in all, in bytes on disk; looked at twice a second,
    /// over it the child is killed. Default [`Isolation::DISK_BYTES`].
    pub disk_bytes: u64,
    /// What the inputs of a job may be in all, in bytes; a job with more fails before it runs.
    /// Default [`Isolation::INPUT_BYTES`].
    pub input_bytes: u64,
}

impl Isolation {
    /// Default of [`Isolation::disk_bytes`]: as much as the largest file.
    pub const DISK_BYTES: u64 = 2 * 1024 * 1024 * 1024;
    /// Default of [`Isolation::input_bytes`]: 1 GiB.
    pub const INPUT_BYTES: u64 = 1024 * 1024 * 1024;

    /// Defaults; children are started as `program args…`.
    #[must_use]
    pub fn new(program: PathBuf, args: &[&str]) -> Self {
        Self {
            program,
            args: args.iter().map(Into::into).collect(),
            scratch: std::env::temp_dir(),
            recycle: Recycle::default(),
            disk_bytes: Self::DISK_BYTES,
            input_bytes: Self::INPUT_BYTES,
        }
    }

    /// Starts one child, hears how well it is confined, and ends it.
    ///
    /// # Errors
    /// Why children cannot be started.
    pub async fn try_out(&self) -> std::io::Result<Sandbox> {
        Pool::new(self.clone(), std::sync::Arc::default()).warm().await
    }
}

/// What a child is told about a job.
pub(crate) struct JobFacts<'a> {
    pub(crate) kind: &'a str,
    pub(crate) args: &'a Value,
    pub(crate) attempt: u32,
    pub(crate) soft: Instant,
    pub(crate) deadline: Instant,
    pub(crate) peak_memory_bytes: u64,
    pub(crate) parents: Vec<Parent>,
}

impl JobFacts<'_> {
    fn request(&self, dir: &Path) -> ToChild {
        let now = Instant::now();
        let ms = |at: Instant| u64::try_from(millis(at.saturating_duration_since(now))).unwrap_or(0);
        ToChild {
            kind: self.kind.to_owned(),
            args: self.args.clone(),
            dir: dir.to_owned(),
            attempt: self.attempt,
            remaining_ms: ms(self.deadline),
            soft_ms: ms(self.soft),
            peak_memory_bytes: self.peak_memory_bytes,
            parents: self.parents.clone(),
            traced: crate::trace::is_recorded(),
        }
    }
}

/// A child and the pipes to it.
#[derive(Debug)]
pub(crate) struct Pipes {
    process: Child,
    requests: ChildStdin,
    frames: BufReader<ChildStdout>,
    errors: ChildStderr,
}

/// What came of telling a child a job.
#[derive(Debug)]
pub(crate) enum Talk {
    Answered {
        outcome: Outcome,
        wear: Wear,
        /// All it wrote to its error output has been read: nothing of it reaches the next job.
        read_out: bool,
    },
    /// It ended before it had read the job: nothing the job did.
    NotBegun(Ended),
    Failed(Ended),
}

impl Pipes {
    pub(crate) fn of(mut process: Child) -> Option<Self> {
        let (requests, frames, errors) = (process.stdin.take()?, process.stdout.take()?, process.stderr.take()?);
        Some(Self { process, requests, frames: BufReader::new(frames), errors })
    }

    /// True unless it has ended by itself.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn end(mut self) {
        let _ = self.process.kill().await;
    }

    /// Orders its end without waiting.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.start_kill();
    }

    /// Its first frame.
    pub(crate) async fn hello(&mut self) -> std::io::Result<Sandbox> {
        match read_frame(&mut self.frames).await {
            Ok(Some(FromChild::Hello(sandbox))) => Ok(sandbox),
            Ok(Some(_)) => Err(std::io::Error::other("the child does not say hello: is it this program?")),
            Err(message) => Err(std::io::Error::other(message)),
            Ok(None) => {
                let mut said = Vec::new();
                let _ = tokio::time::timeout(LAST_BREATH, listen(&mut self.errors, &mut said)).await;
                Err(std::io::Error::other(format!("the child ended: {}", String::from_utf8_lossy(&said).trim())))
            }
        }
    }

    /// Tells it a job and hears it out. When this future is dropped, the child is of no more use.
    pub(crate) async fn talk(
        &mut self,
        job: &JobFacts<'_>,
        dir: &Path,
        hello: impl Fn(Sandbox),
        say: impl Fn(Progress),
    ) -> Talk {
        let Ok(bytes) = encode(&job.request(dir)) else {
            return Talk::Failed(failed(
                "args_too_large",
                "the args, with what its parents left, do not fit into a frame".to_owned(),
            ));
        };
        // A child that died early tells why by its status; the broken pipe is no news.
        let _ = self.requests.write_all(&bytes).await;
        let mut said = Vec::new();
        let mut begun = false;
        let heard = {
            let hear = hear(&mut self.frames, &mut begun, hello, say);
            tokio::select! {
                biased;
                heard = hear => heard,
                // Read all the while, so that the child never waits for a reader.
                never = drain(&mut self.errors, &mut said) => match never {},
            }
        };
        match heard {
            Ok(Some(FromChild::Answer { outcome, wear, stages })) => {
                crate::trace::record(stages);
                let rest = read_out(&mut self.errors, &mut said);
                let read_out = tokio::time::timeout(LAST_BREATH, rest).await.unwrap_or(false);
                Talk::Answered { outcome, wear, read_out }
            }
            Ok(Some(FromChild::TooLarge { bytes })) => Talk::Failed(too_large(bytes)),
            Ok(_) => {
                let ended = self.last_words(&mut said).await;
                if begun { Talk::Failed(ended) } else { Talk::NotBegun(ended) }
            }
            Err(message) => {
                Talk::Failed(crashed("child_protocol", format!("it does not keep to the frames: {message}")))
            }
        }
    }

    /// Why a child that gave no answer says no more.
    async fn last_words(&mut self, said: &mut Vec<u8>) -> Ended {
        let Ok(Ok(status)) = tokio::time::timeout(LAST_BREATH, self.process.wait()).await else {
            return crashed("child_protocol", "it closed its pipes and stayed".to_owned());
        };
        let _ = tokio::time::timeout(LAST_BREATH, listen(&mut self.errors, said)).await;
        died(status, &String::from_utf8_lossy(said))
    }
}

/// Hears frames until the last one of a job; `None` when the child says no more.
async fn hear(
    from: &mut (impl AsyncRead + Unpin),
    begun: &mut bool,
    hello: impl Fn(Sandbox),
    say: impl Fn(Progress),
) -> Result<Option<FromChild>, String> {
    loop {
        match read_frame(from).await? {
            Some(FromChild::Hello(sandbox)) => hello(sandbox),
            Some(FromChild::Begun) => *begun = true,
            Some(FromChild::Progress(progress)) => say(progress),
            last => return Ok(last),
        }
    }
}

/// Reads to the end and keeps the last [`MAX_STDERR_BYTES`].
async fn listen(from: &mut ChildStderr, said: &mut Vec<u8>) {
    let mut part = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut part).await {
        said.extend_from_slice(&part[..n]);
        let over = said.len().saturating_sub(MAX_STDERR_BYTES);
        said.drain(..over);
    }
}

/// Reads to the end of the job's words; false when there are no more without it.
async fn read_out(from: &mut ChildStderr, said: &mut Vec<u8>) -> bool {
    let mut part = [0; 4096];
    while !said.ends_with(END_OF_WORDS) {
        let Ok(n @ 1..) = from.read(&mut part).await else { return false };
        said.extend_from_slice(&part[..n]);
        let over = said.len().saturating_sub(MAX_STDERR_BYTES);
        said.drain(..over);
    }
    true
}

/// [`listen`], and then nothing for ever.
async fn drain(from: &mut ChildStderr, said: &mut Vec<u8>) -> std::convert::Infallible {
    listen(from, said).await;
    std::future::pending().await
}

pub(crate) fn failed(code: &str, message: String) -> Ended {
    Ended::Failed { reason: Reason::Error, error: RunError::new(code, message), after: None }
}

fn crashed(code: &str, message: String) -> Ended {
    Ended::Failed { reason: Reason::Crashed, error: RunError::new(code, message), after: None }
}

fn too_large(bytes: usize) -> Ended {
    let message = format!("the answer has {bytes} bytes: use an artifact");
    Ended::Fatal { reason: Reason::ResultTooLarge, error: RunError::new("result_too_large", message) }
}

/// Why a child that gave no answer died.
fn died(status: ExitStatus, stderr: &str) -> Ended {
    let last = stderr.trim().lines().last().unwrap_or_default();
    let said = if last.is_empty() { String::new() } else { format!(": {last}") };
    let (reason, code, what) = match status.signal() {
        // What Rust's allocator says before it aborts.
        Some(6) if stderr.contains("memory allocation of") => {
            (Reason::Oom, "oom", "it asked for more memory than it may have".to_owned())
        }
        Some(24) => (Reason::Timeout, "timeout", "it used up its processor time".to_owned()),
        Some(signal) => (Reason::Crashed, "crashed", format!("killed by {}", signal_name(signal))),
        None => (Reason::Crashed, "crashed", format!("ended with {status}")),
    };
    Ended::Failed { reason, error: RunError::new(code, format!("{what}{said}")), after: None }
}

/// The name of a signal a child usually dies of.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL (by someone, or because the machine ran out of memory)",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        25 => "SIGXFSZ (a file over its limit of 2 GiB)",
        31 => "SIGSYS (a system call that no handler may make)",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_without_an_answer_has_its_reason() {
        let check = |raw: i32, stderr: &str, expected: Reason, part: &str| {
            let Ended::Failed { reason, error, .. } = died(ExitStatus::from_raw(raw), stderr) else { panic!() };
            assert_eq!(reason, expected, "{error}");
            assert!(error.message.contains(part), "{error}");
        };
        check(6, "memory allocation of 64 bytes failed\n", Reason::Oom, "more memory");
        check(6, "thread main has overflowed its stack\n", Reason::Crashed, "SIGABRT: thread main");
        check(11, "memory allocation of: a handler printed it", Reason::Crashed, "SIGSEGV");
        check(24, "", Reason::Timeout, "processor time");
        check(25, "", Reason::Crashed, "SIGXFSZ");
        check(31, "", Reason::Crashed, "SIGSYS");
        check(9, "", Reason::Crashed, "SIGKILL");
        check(256, "", Reason::Crashed, "exit status: 1");
    }
}
