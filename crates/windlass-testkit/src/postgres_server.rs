//! A private PostgreSQL: its own cluster, its own port, gone with its test.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::process::spawn;

/// How long a cluster may take to answer; 0.3 s is usual, and a recovery is longer.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Where a server logs, in its directory.
const LOG: &str = "postgres.log";
/// How often another port is tried when the free one was taken in between.
const PORT_TRIES: usize = 20;

/// A PostgreSQL cluster on 127.0.0.1, ended when it is dropped or when the process ends. Its
/// superuser is `postgres`, without a password.
///
/// The programs are those of Debian's package `postgresql`, or those in the folder that the
/// environment variable `POSTGRES_BIN` names. They refuse to run as root, so root lends them the
/// user `postgres` or `nobody`.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    dir: TempDir,
    bin: PathBuf,
    args: Vec<String>,
    child: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl PostgresServer {
    /// Makes a cluster and starts it; settings as in `("fsync", "off")`.
    ///
    /// # Panics
    /// When the programs are missing (naming the package) or it does not come up (with its log).
    #[must_use]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let bin = programs();
        let dir = tempfile::Builder::new().prefix("windlass-postgres-").tempdir().expect("a temp dir can be made");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).expect("the temp dir is ours");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("the temp dir is writable");
        if let Some((user, _)) = lent_user() {
            run(Command::new("chown").arg(user).arg(&data));
        }
        run(as_user(&bin.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .current_dir(dir.path()));
        let args: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for _ in 0..PORT_TRIES {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback interface has a free port");
            let port = listener.local_addr().expect("a bound socket has an address").port();
            drop(listener);
            match launch(&bin, dir.path(), port, &args) {
                Ok(child) => {
                    return Self { port, dir, bin, args, child: Mutex::new(Some(child)), databases: AtomicU32::new(0) };
                }
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("postgres did not start:\n{log}"),
            }
        }
        panic!("no free port for postgres in {PORT_TRIES} tries");
    }

    /// A new, empty database: `postgres://postgres@127.0.0.1:<port>/<name>`.
    ///
    /// # Panics
    /// When the server does not run.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        run(Command::new(self.bin.join("createdb"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(self.port.to_string())
            .arg(&name));
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// The port it listens on; it stays the same over a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What it has logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default()
    }

    /// Ends it at once, transactions and all, as `pg_ctl stop -m immediate` does: it recovers at
    /// the next start. Once dead, nothing happens.
    pub fn stop_immediate(&self) {
        self.end(Signal::QUIT);
    }

    /// Starts it again, ending it first if it runs.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&self) {
        self.stop_immediate();
        let child = launch(&self.bin, self.dir.path(), self.port, &self.args);
        *self.child() = Some(child.unwrap_or_else(|log| panic!("postgres did not start again:\n{log}")));
    }

    fn end(&self, signal: Signal) {
        let Some(mut child) = self.child().take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
        let _ = child.wait();
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop_immediate();
    }
}

/// The one cluster that tests of a process share while they run, each with a database of its own.
/// It is never stopped by a test. What is written there survives no crash of the machine.
///
/// # Panics
/// As [`PostgresServer::start`].
#[must_use]
pub fn shared_postgres() -> Arc<PostgresServer> {
    static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(PostgresServer::start(&[("fsync", "off")]));
        *shared = Arc::downgrade(&server);
        server
    })
}

/// Where `postgres` and `initdb` lie.
fn programs() -> PathBuf {
    if let Some(dir) = std::env::var_os("POSTGRES_BIN") {
        return dir.into();
    }
    let on_path = std::env::var_os("PATH").and_then(|path| {
        let mut found = std::env::split_paths(&path).filter(|dir| dir.join("initdb").exists());
        // A link leads to where the others lie.
        let initdb = found.next()?.join("initdb").canonicalize().ok()?;
        initdb.parent().filter(|bin| bin.join("postgres").exists() && bin.join("createdb").exists()).map(Path::to_owned)
    });
    // Debian keeps them by version.
    let debian = || {
        let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|bin| bin.join("initdb").exists())
            .collect();
        found.sort();
        found.pop()
    };
    on_path.or_else(debian).unwrap_or_else(|| {
        panic!("postgres cannot be found: install the Debian package `postgresql`, or name its folder in POSTGRES_BIN")
    })
}

/// The user and group that root lends; none when we are not root.
fn lent_user() -> Option<(&'static str, &'static str)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is_postgres_there = users.lines().any(|line| line.starts_with("postgres:"));
    Some(if is_postgres_there { ("postgres", "postgres") } else { ("nobody", "nogroup") })
}

fn as_user(program: &Path) -> Command {
    let Some((user, group)) = lent_user() else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    // The kernel forgets the signal at a change of user, so setpriv asks for it again.
    command.args(["--reuid", user, "--regid", group, "--clear-groups", "--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{:?} cannot be run: {e}", command.get_program()));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a cluster and waits until it answers; the error is its log.
fn launch(bin: &Path, dir: &Path, port: u16, settings: &[String]) -> Result<Child, String> {
    let log_path = dir.join(LOG);
    let log = File::create(&log_path).expect("the temp dir is writable");
    let data = dir.join("data");
    let mut command = as_user(&bin.join("postgres"));
    command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", "", "-c", "listen_addresses=127.0.0.1"]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file handle can be doubled"))
        .stderr(log);
    let mut child = spawn(command).unwrap_or_else(|e| panic!("postgres cannot be run: {e}"));
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(&log_path).unwrap_or_default();
        let ready = text.contains("ready to accept connections");
        let ended = child.try_wait().ok().flatten();
        if ready && ended.is_none() {
            return Ok(child);
        }
        if ended.is_some() || begun.elapsed() > READY_WITHIN {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{text}\n(port {port}, ended {ended:?}, waited {:?})", begun.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
