//! The binary, a home for it, and processes that end with the test.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;
use windlass_testkit::RedisServer;

/// How long anything that should happen soon may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The binary under test: the one that cargo has built with the tests, or for a long run another one,
/// `WINDLASS_TEST_BINARY`.
pub(crate) fn binary() -> &'static Path {
    static OTHER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let other = OTHER.get_or_init(|| std::env::var_os("WINDLASS_TEST_BINARY").map(PathBuf::from));
    other.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_windlass")))
}

/// A program of the examples, built first if need be: with the features of the whole workspace, as
/// `tests/run` builds it, so that no crate is compiled twice.
fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--workspace", "--bins", "--tests"]).status();
        assert!(built.is_ok_and(|status| status.success()), "the examples do not build");
    });
    Path::new(env!("CARGO_BIN_EXE_windlass")).with_file_name(name)
}

/// A working directory and settings of its own.
pub(crate) struct Home {
    dir: TempDir,
    env: Vec<(String, String)>,
}

impl Home {
    /// Everything embedded below a fresh directory; over HTTP whoever asks may do everything.
    pub(crate) fn embedded() -> Self {
        let open = ("WINDLASS_LOOPBACK_ACCESS".to_owned(), "all".to_owned());
        Self { dir: tempfile::tempdir().unwrap(), env: vec![open] }
    }

    /// Everything on a Redis, under a prefix of its own.
    pub(crate) fn on(redis: &RedisServer) -> Self {
        Self::at(&redis.url())
    }

    /// The same, of any topology.
    pub(crate) fn at(url: &str) -> Self {
        let prefix = format!("t{}", windlass_jobs::new_ulid().to_string().to_ascii_lowercase());
        Self::embedded().with("REDIS_URL", url).with("WINDLASS_QUEUE_PREFIX", &prefix)
    }

    /// The same settings and working directory kind, in a directory of its own.
    pub(crate) fn clone_of(other: &Self) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), env: other.env.clone() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a setting.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.retain(|(n, _)| n != name);
        self
    }

    pub(crate) fn setting(&self, name: &str) -> &str {
        self.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file and answers its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command in this home that is not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// Runs a command that must work, with `--json`; its last line.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert!(ran.status.success(), "{args:?}: {ran:?}");
        ran.json()
    }

    /// Enqueues a job and answers its id.
    pub(crate) fn enqueue(&self, kind: &str, args: &str, more: &[&str]) -> String {
        let file = self.file(&format!("args-{}.json", windlass_jobs::new_ulid()), args);
        let words = [&["enqueue", kind, "--args", file.to_str().unwrap()], more].concat();
        self.json(&words)["task_id"].as_str().unwrap().to_owned()
    }

    /// A job as `windlass task` shows it.
    pub(crate) fn task(&self, id: &str) -> Value {
        let ran = self.run(&["task", id, "--json"]);
        assert!(matches!(ran.status.code(), Some(0 | 3)), "{ran:?}");
        ran.json()
    }

    /// Waits until a job is in a state.
    pub(crate) fn wait_for(&self, id: &str, state: &str) -> Value {
        let mut task = Value::Null;
        wait(SOON, &format!("{id} is {state}"), || {
            task = self.task(id);
            task["status"] == state
        });
        task
    }

    /// Starts a command that stays up, its log in a file.
    pub(crate) fn start(&self, args: &[&str]) -> Daemon {
        self.spawn(self.command(args))
    }

    /// Starts a program of the examples in this home.
    pub(crate) fn start_example(&self, name: &str) -> Daemon {
        let mut command = Command::new(example(name));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        self.spawn(command)
    }

    /// Starts any program with this home's settings and directory.
    pub(crate) fn spawn_with(&self, mut command: Command) -> Daemon {
        command.current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        self.spawn(command)
    }

    fn spawn(&self, mut command: Command) -> Daemon {
        let log = self.dir.path().join(format!("log-{}.txt", windlass_jobs::new_ulid()));
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = windlass_testkit::spawn(command).unwrap();
        let stdout = child.stdout.take().unwrap();
        Daemon { child, log, stdout: Some(stdout) }
    }

    /// Starts a worker and waits until it is on the list.
    pub(crate) fn worker(&self, queues: &str, more: &[&str]) -> Daemon {
        let mut daemon = self.start(&[&["worker", "--queues", queues, "--json"], more].concat());
        daemon.first_line();
        daemon
    }

    /// Starts `windlass up` or `api` on a free port; the process and its base URL.
    pub(crate) fn serve(&self, args: &[&str]) -> (Daemon, String) {
        let mut daemon = self.start(&[args, &["--listen", "127.0.0.1:0", "--json"]].concat());
        let address = daemon.first_line()["api"].as_str().unwrap().to_owned();
        (daemon, format!("http://{address}"))
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// The last line of `--json`.
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A process that stays up until it is told otherwise, or the test ends.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    stdout: Option<std::process::ChildStdout>,
}

impl Daemon {
    /// What it says first, as JSON; its output is left alone from then on.
    pub(crate) fn first_line(&mut self) -> Value {
        let mut stdout = self.stdout.take().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        // Kept open, so that the process never writes into a closed pipe.
        self.stdout = Some(stdout);
        serde_json::from_slice(&line).unwrap_or_else(|_| panic!("no first line; its log:\n{}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self, within: Duration) -> ExitStatus {
        let mut status = None;
        let log = self.log.clone();
        wait(within, "the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        assert!(
            status.code().is_some(),
            "ended by a signal; its log:\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
        status
    }

    pub(crate) fn is_up(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until it is so.
#[track_caller]
pub(crate) fn wait(within: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
