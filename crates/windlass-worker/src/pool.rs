//! The children of a worker: started when they are needed, kept between jobs, ended when they are
//! worn, surplus or unsound.
//!
//! Every child has a directory of its own, which is all it can see, and gets one job at a time.
//! A child whose run was cut short is never used again.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FlockOperation;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use windlass_jobs::{Outcome, Progress};

use crate::counts::{Counts, Gone};
use crate::disk;
use crate::frame::Wear;
use crate::isolate::{Isolation, JobFacts, Pipes, Talk, failed};
use crate::policy::Ended;
use crate::sandbox::Sandbox;

/// How the directories of pools are called in the scratch directory.
const PREFIX: &str = "windlass-pool-";
/// A directory younger than this may belong to a worker that is just starting.
const YOUNG: Duration = Duration::from_secs(60);
/// How long a child has for its first words.
const HELLO_WITHIN: Duration = Duration::from_secs(20);

/// The children of one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    isolation: Isolation,
    /// Made when the first child is needed.
    home: Mutex<Option<Arc<Home>>>,
    /// Longest idle first.
    idle: Mutex<VecDeque<(Instant, OneChild)>>,
    started: AtomicU64,
    sandbox: OnceLock<Sandbox>,
    counts: Arc<Counts>,
}

/// What a pool has outside of itself: a directory, locked so that nobody sweeps it away, and the
/// thread that starts children.
#[derive(Debug)]
struct Home {
    dir: TempDir,
    _lock: File,
    orders: mpsc::Sender<Order>,
}

type Order = (Command, oneshot::Sender<std::io::Result<Child>>);

#[derive(Debug)]
struct OneChild {
    pipes: Pipes,
    /// Its own; `job` in it is the private directory of the job it runs.
    dir: PathBuf,
    jobs: u32,
    /// Keeps the directory, and the thread whose end would be this child's.
    home: Arc<Home>,
}

impl Pool {
    /// Without any child yet. Must be called on a runtime.
    pub(crate) fn new(isolation: Isolation, counts: Arc<Counts>) -> Arc<Self> {
        let every = (isolation.recycle.idle_for / 6).max(Duration::from_millis(50));
        let pool = Arc::new(Self {
            isolation,
            home: Mutex::default(),
            idle: Mutex::default(),
            started: AtomicU64::new(0),
            sandbox: OnceLock::new(),
            counts,
        });
        let weak = Arc::downgrade(&pool);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(pool) = weak.upgrade() else { return };
                pool.end_surplus();
            }
        });
        pool
    }

    /// What the inputs of a job may be in all.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.isolation.input_bytes
    }

    /// Starts a child ahead of the first job; how well it is confined.
    pub(crate) async fn warm(&self) -> std::io::Result<Sandbox> {
        let mut child = self.start().await?;
        match tokio::time::timeout(HELLO_WITHIN, child.pipes.hello()).await {
            Ok(Ok(sandbox)) => {
                self.note(sandbox.clone());
                self.put(child);
                Ok(sandbox)
            }
            Ok(Err(error)) => {
                self.discard(child, Gone::Died);
                Err(error)
            }
            Err(_) => {
                self.discard(child, Gone::Died);
                Err(std::io::Error::other("the child says nothing"))
            }
        }
    }

    /// A child that waits for one job, with a fresh directory for it.
    pub(crate) async fn seat(self: &Arc<Self>) -> Result<Seat, Ended> {
        while let Some(mut child) = self.take() {
            // Its directory is empty since the last job; a cleaner of old files may have taken it.
            if child.pipes.is_alive() && child.job_dir().join("out").is_dir() {
                return Ok(self.seated(child));
            }
            self.discard(child, Gone::Died);
        }
        let seat = self.seated(self.start().await.map_err(|e| self.not_started(&e))?);
        let made = seat.child.as_ref().map(OneChild::make_job_dir).transpose();
        made.map_err(|e| failed("storage", format!("private directory: {e}")))?;
        Ok(seat)
    }

    fn seated(self: &Arc<Self>, child: OneChild) -> Seat {
        Seat { pool: Arc::clone(self), child: Some(child), reusable: true, is_worn: false }
    }

    fn not_started(&self, error: &std::io::Error) -> Ended {
        failed("child_not_started", format!("{}: {error}", self.isolation.program.display()))
    }

    fn take(&self) -> Option<OneChild> {
        let mut idle = lock(&self.idle);
        let taken = idle.pop_back().map(|(_, child)| child);
        self.counts.children.idle(idle.len());
        taken
    }

    fn put(&self, child: OneChild) {
        let mut idle = lock(&self.idle);
        idle.push_back((Instant::now(), child));
        self.counts.children.idle(idle.len());
    }

    fn end_surplus(&self) {
        let surplus: Vec<_> = {
            let mut idle = lock(&self.idle);
            let n = self.isolation.recycle.surplus(idle.iter().map(|(since, _)| *since), Instant::now());
            let surplus = idle.drain(..n).collect();
            self.counts.children.idle(idle.len());
            surplus
        };
        surplus.into_iter().for_each(|(_, child)| self.discard(child, Gone::Surplus));
    }

    fn discard(&self, child: OneChild, why: Gone) {
        self.counts.children.gone(why);
        discard(child);
    }

    /// Logs once what the sandbox of this machine is.
    fn note(&self, sandbox: Sandbox) {
        if self.sandbox.set(sandbox.clone()).is_err() {
            return;
        }
        let missing = sandbox.missing();
        if missing.is_empty() {
            tracing::info!(%sandbox, "children are confined");
        } else {
            tracing::warn!(%sandbox, missing = missing.join("; "), "children are not fully confined");
        }
    }

    async fn start(&self) -> std::io::Result<OneChild> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let mut home = self.home()?;
        let name = format!("c{number}");
        let mut dir = home.dir.path().join(&name);
        if let Err(error) = make_dir(&dir) {
            // Swept away under us: everything in it is of no use.
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(error);
            }
            *lock(&self.home) = None;
            home = self.home()?;
            dir = home.dir.path().join(&name);
            make_dir(&dir)?;
        }
        let (reply, started) = oneshot::channel();
        let order = (self.command(&dir), reply);
        let gone = || std::io::Error::other("the thread that starts children is gone");
        home.orders.send(order).map_err(|_| gone())?;
        let process = started.await.map_err(|_| gone())??;
        let pipes = Pipes::of(process).ok_or_else(|| std::io::Error::other("its pipes are not there"))?;
        self.counts.children.started();
        Ok(OneChild { pipes, dir, jobs: 0, home })
    }

    fn home(&self) -> std::io::Result<Arc<Home>> {
        let mut home = lock(&self.home);
        if let Some(home) = &*home {
            return Ok(Arc::clone(home));
        }
        let made = Arc::new(Home::make(&self.isolation.scratch)?);
        *home = Some(Arc::clone(&made));
        Ok(made)
    }

    fn command(&self, dir: &Path) -> Command {
        let mut command = std::process::Command::new(&self.isolation.program);
        command
            .arg0("windlass-child")
            .args(&self.isolation.args)
            .env_clear()
            .env("TMPDIR", dir.join("job"))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        command
    }
}

impl Home {
    fn make(scratch: &Path) -> std::io::Result<Self> {
        sweep(scratch);
        // Made for this user only.
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(scratch)?;
        // systemd-tmpfiles leaves a locked directory alone, however old it is.
        let lock = File::open(dir.path())?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared)?;
        let (orders, inbox) = mpsc::channel();
        let runtime = Handle::current();
        let serve = move || start_children(&inbox, &runtime);
        std::thread::Builder::new().name("windlass-spawn".into()).spawn(serve)?;
        Ok(Self { dir, _lock: lock, orders })
    }
}

/// Starts children on one thread that lives as long as the pool: the kernel ends a child when the
/// *thread* that started it ends, and a runtime may end its threads at any time.
fn start_children(inbox: &mpsc::Receiver<Order>, runtime: &Handle) {
    let _inside = runtime.enter();
    for (mut command, reply) in inbox {
        // Nobody waits when the run was ended meanwhile; the child goes with the answer.
        let _ = reply.send(command.spawn());
    }
}

/// Removes what workers that were killed have left. The lock on a directory ends with its worker.
fn sweep(scratch: &Path) {
    let Ok(entries) = std::fs::read_dir(scratch) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let age = || SystemTime::now().duration_since(entry.metadata().ok()?.modified().ok()?).ok();
        if !ours || age().is_none_or(|age| age < YOUNG) {
            continue;
        }
        let Ok(dir) = File::open(entry.path()) else { continue };
        if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl OneChild {
    fn job_dir(&self) -> PathBuf {
        self.dir.join("job")
    }

    fn make_job_dir(&self) -> std::io::Result<()> {
        let dir = self.job_dir();
        make_dir(&dir)?;
        make_dir(&dir.join("in"))?;
        make_dir(&dir.join("out"))
    }
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir(dir)
}

/// Ends a child, then removes its directory, without keeping anyone waiting.
fn discard(mut child: OneChild) {
    child.pipes.kill();
    let Ok(runtime) = Handle::try_current() else { return };
    runtime.spawn(async move {
        child.pipes.end().await;
        let _ = tokio::fs::remove_dir_all(&child.dir).await;
        drop(child.home);
    });
}

/// A child with one job. Dropped before [`Seat::leave`], it is killed.
#[derive(Debug)]
pub(crate) struct Seat {
    pool: Arc<Pool>,
    /// Gone only when the seat is.
    child: Option<OneChild>,
    /// False from the moment it has a job until that job is answered.
    reusable: bool,
    /// It answered, and has run enough.
    is_worn: bool,
}

impl Seat {
    /// The private directory of the job, with `in` and `out`. Another one after [`Seat::run`].
    pub(crate) fn dir(&self) -> PathBuf {
        self.child.as_ref().map(OneChild::job_dir).unwrap_or_default()
    }

    fn child(&mut self) -> &mut OneChild {
        self.child.as_mut().expect("a seat has a child until it is dropped")
    }

    /// Runs the job. When this future is dropped the child is killed with the seat.
    pub(crate) async fn run(&mut self, job: &JobFacts<'_>, say: impl Fn(Progress)) -> Result<Outcome, Ended> {
        self.reusable = false;
        let (dir, most) = (self.dir(), self.pool.isolation.disk_bytes);
        let talk = self.talk_it_over(job, &say);
        tokio::select! {
            biased;
            ended = talk => ended,
            ended = disk::overrun(&dir, most) => Err(ended),
        }
    }

    async fn talk_it_over(&mut self, job: &JobFacts<'_>, say: impl Fn(Progress)) -> Result<Outcome, Ended> {
        match self.talk(job, &say).await {
            // It had died of something else, such as a machine out of memory: another one, once.
            Talk::NotBegun(_) => {
                self.replace().await?;
                match self.talk(job, &say).await {
                    Talk::NotBegun(ended) | Talk::Failed(ended) => Err(ended),
                    Talk::Answered { outcome, wear, read_out } => Ok(self.answered(outcome, wear, read_out)),
                }
            }
            Talk::Failed(ended) => Err(ended),
            Talk::Answered { outcome, wear, read_out } => Ok(self.answered(outcome, wear, read_out)),
        }
    }

    async fn talk(&mut self, job: &JobFacts<'_>, say: impl Fn(Progress)) -> Talk {
        let (dir, pool) = (self.dir(), Arc::clone(&self.pool));
        self.child().pipes.talk(job, &dir, |sandbox| pool.note(sandbox), say).await
    }

    fn answered(&mut self, outcome: Outcome, wear: Wear, read_out: bool) -> Outcome {
        let jobs = {
            let child = self.child();
            child.jobs += 1;
            child.jobs
        };
        let worn = self.pool.isolation.recycle.worn(jobs, wear);
        if let Some(why) = worn {
            tracing::debug!(jobs, rss_bytes = wear.peak_rss_bytes, ?why, "child is replaced");
        }
        self.reusable = worn.is_none() && read_out;
        self.is_worn = worn.is_some();
        outcome
    }

    /// A fresh child takes the place, with the files already laid.
    async fn replace(&mut self) -> Result<(), Ended> {
        let fresh = self.pool.start().await.map_err(|e| self.pool.not_started(&e))?;
        let moved = std::fs::rename(self.dir(), fresh.job_dir());
        let dead = self.child.replace(fresh);
        dead.into_iter().for_each(|child| self.pool.discard(child, Gone::Died));
        moved.map_err(|e| failed("storage", format!("private directory: {e}")))
    }

    /// The job's files are no longer needed; the child may have the next job.
    pub(crate) async fn leave(mut self) {
        if !self.reusable {
            return;
        }
        let dir = self.dir();
        let cleared = match clear(&dir, false) {
            Ok(true) => true,
            // Removing large files takes a while.
            Ok(false) => matches!(tokio::task::spawn_blocking(move || clear(&dir, true)).await, Ok(Ok(true))),
            Err(_) => false,
        };
        if cleared && let Some(child) = self.child.take() {
            self.pool.put(child);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let why = if self.is_worn { Gone::Worn } else { Gone::Spoilt };
        self.child.take().into_iter().for_each(|child| self.pool.discard(child, why));
    }
}

/// Whether a job's directory holds nothing but an empty `in` and `out`; what else there is is
/// removed if `remove`.
fn clear(dir: &Path, remove: bool) -> std::io::Result<bool> {
    let parts = ["in", "out"].map(|part| dir.join(part));
    for folder in parts.iter().map(PathBuf::as_path).chain([dir]) {
        // Not through a link a handler may have put there.
        if !std::fs::symlink_metadata(folder)?.is_dir() {
            return Err(std::io::ErrorKind::NotADirectory.into());
        }
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if parts.contains(&path) {
                continue;
            }
            if !remove {
                return Ok(false);
            }
            if entry.file_type()?.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
        }
    }
    Ok(true)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_directory_holds_nothing_of_the_job() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for part in ["in", "out", "out/deep/er", "tmp"] {
            std::fs::create_dir_all(at(part)).unwrap();
        }
        for file in ["in/a", "out/b", "out/deep/er/c", "tmp/d", "e"] {
            std::fs::write(at(file), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc", at("out/link")).unwrap();
        assert!(!clear(dir.path(), false).unwrap());
        assert!(clear(dir.path(), true).unwrap());
        assert!(clear(dir.path(), false).unwrap());
        assert!(at("in").is_dir() && at("out").is_dir() && !at("e").exists() && !at("tmp").exists());
        assert_eq!(std::fs::read_dir(at("out")).unwrap().count(), 0);
        std::fs::remove_dir(at("in")).unwrap();
        assert!(clear(dir.path(), true).is_err(), "not as it was");
    }
}
