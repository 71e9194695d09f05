//! The parent's side of an isolated run: a child process of the same binary, spoken to in
//! frames, killed when it is no longer wanted.
//!
//! Whatever the child does – loop, abort, overflow its stack, eat memory – is one failed run.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use windlass_jobs::{Outcome, Progress, Reason, RunError, millis};

use crate::frame::{FromChild, MAX_FRAME_BYTES, ToChild, encode};
use crate::policy::Ended;

/// How much of what a child writes to its error output is kept, in bytes.
const MAX_STDERR_BYTES: u64 = 16 * 1024;

/// How child processes are started.
#[derive(Debug, Clone)]
pub struct Isolation {
    /// The program: normally this one ([`std::env::current_exe`]).
    pub program: PathBuf,
    /// What makes it call [`crate::child_main`].
    pub args: Vec<OsString>,
    /// Where private directories are made; default: the system's temporary directory.
    pub scratch: PathBuf,
}

/// What a child is told.
pub(crate) struct JobFacts<'a> {
    pub(crate) kind: &'a str,
    pub(crate) args: &'a Value,
    pub(crate) dir: &'a Path,
    pub(crate) attempt: u32,
    pub(crate) deadline: Instant,
    pub(crate) peak_memory_bytes: u64,
}

impl Isolation {
    /// A fresh directory with `in` and `out`, for this user only; gone when dropped.
    pub(crate) fn private_dir(&self) -> std::io::Result<TempDir> {
        let dir = tempfile::Builder::new().prefix("windlass-run-").tempdir_in(&self.scratch)?;
        std::fs::create_dir(dir.path().join("in"))?;
        std::fs::create_dir(dir.path().join("out"))?;
        Ok(dir)
    }

    /// Runs one job in a child of its own. Dropping the future kills the child.
    pub(crate) async fn run(&self, facts: &JobFacts<'_>, say: impl Fn(Progress)) -> Result<Outcome, Ended> {
        let mut child = self
            .spawn(facts.dir)
            .map_err(|e| failed("child_not_started", format!("{}: {e}", self.program.display())))?;
        let request = ToChild {
            kind: facts.kind.to_owned(),
            args: facts.args.clone(),
            dir: facts.dir.to_owned(),
            attempt: facts.attempt,
            remaining_ms: u64::try_from(millis(facts.deadline.saturating_duration_since(Instant::now()))).unwrap_or(0),
            peak_memory_bytes: facts.peak_memory_bytes,
        };
        let talk = talk(&mut child, &request, say).await;
        match talk {
            Ok((Some(outcome), _)) => {
                let _ = child.wait().await;
                Ok(outcome)
            }
            Ok((None, stderr)) => {
                let status = child.wait().await.map_err(|e| failed("child_lost", e.to_string()))?;
                Err(died(status, &stderr))
            }
            Err(message) => {
                let _ = child.kill().await;
                Err(failed("child_protocol", message))
            }
        }
    }

    fn spawn(&self, dir: &Path) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("TMPDIR", dir)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Sends the job, hears the frames out; the outcome if there was one, and the error output.
async fn talk(
    child: &mut Child,
    request: &ToChild,
    say: impl Fn(Progress),
) -> Result<(Option<Outcome>, String), String> {
    let (Some(mut stdin), Some(mut stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("its pipes are not there".to_owned());
    };
    let bytes = encode(request).map_err(|e| e.to_string())?;
    let send = async {
        // A child that died early says why on its error output; the broken pipe is no news.
        let _ = stdin.write_all(&bytes).await;
        drop(stdin);
    };
    let read_errors = async {
        let mut text = Vec::new();
        let mut stderr = stderr;
        let _ = (&mut stderr).take(MAX_STDERR_BYTES).read_to_end(&mut text).await;
        // Whatever follows is thrown away, so that the child never waits for a reader.
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        String::from_utf8_lossy(&text).into_owned()
    };
    let hear = async {
        let mut outcome = None;
        while let Some(frame) = read_frame(&mut stdout).await? {
            match frame {
                FromChild::Progress(progress) => say(progress),
                FromChild::Outcome(o) => outcome = Some(o),
            }
        }
        Ok::<_, String>(outcome)
    };
    let ((), stderr, outcome) = tokio::join!(send, read_errors, hear);
    Ok((outcome?, stderr))
}

async fn read_frame(from: &mut (impl AsyncReadExt + Unpin)) -> Result<Option<FromChild>, String> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e.to_string()),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(format!("a frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed"));
    }
    let mut bytes = vec![0; length];
    match from.read_exact(&mut bytes).await {
        Ok(_) => serde_json::from_slice(&bytes).map(Some).map_err(|e| e.to_string()),
        // Killed in the middle of a frame: its exit status tells why.
        Err(_) => Ok(None),
    }
}

fn failed(code: &str, message: String) -> Ended {
    Ended::Failed { reason: Reason::Error, error: RunError::new(code, message), after: None }
}

/// Why a child that gave no outcome died.
fn died(status: ExitStatus, stderr: &str) -> Ended {
    let last = stderr.trim().lines().last().unwrap_or_default();
    let said = if last.is_empty() { String::new() } else { format!(": {last}") };
    let (reason, code, what) = if stderr.contains("memory allocation of") {
        (Reason::Oom, "oom", "it asked for more memory than it may have".to_owned())
    } else {
        match status.signal() {
            Some(24) => (Reason::Timeout, "timeout", "it used up its processor time".to_owned()),
            Some(signal) => (Reason::Crashed, "crashed", format!("killed by {}", signal_name(signal))),
            None => (Reason::Crashed, "crashed", format!("ended with {status}")),
        }
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
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}
