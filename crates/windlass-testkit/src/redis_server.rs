//! A private redis-server: its own port, its own directory, gone with its test.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::process::spawn;

/// How long a server may take to answer its first PING; 18 ms is usual.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How often another port is tried when the free one was taken in between.
const PORT_TRIES: usize = 20;

/// A redis-server without persistence on 127.0.0.1, ended when it is dropped or when the
/// process ends.
///
/// The program is `redis-server`, or what the environment variable `REDIS_SERVER` names.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    dir: TempDir,
    args: Vec<String>,
    is_tls: bool,
    child: Mutex<Option<Child>>,
}

/// What a [`RedisServer`] is started with.
#[derive(Debug, Clone, Default)]
pub struct RedisServerBuilder {
    args: Vec<String>,
    is_tls: bool,
    port: Option<u16>,
}

impl RedisServerBuilder {
    /// Adds an option as on the command line: `.arg("maxclients", "20")`.
    #[must_use]
    pub fn arg(mut self, name: &str, value: impl ToString) -> Self {
        self.args.push(format!("--{name}"));
        self.args.push(value.to_string());
        self
    }

    /// Keeps an append-only file; `fsync` is `always`, `everysec` or `no`.
    #[must_use]
    pub fn append_only(self, fsync: &str) -> Self {
        self.arg("appendonly", "yes").arg("appendfsync", fsync)
    }

    /// Bounds the memory, as in `2mb`, with what happens then, as in `noeviction`.
    #[must_use]
    pub fn max_memory(self, bytes: &str, policy: &str) -> Self {
        self.arg("maxmemory", bytes).arg("maxmemory-policy", policy)
    }

    /// Speaks nothing but TLS on its port, with what lies in this folder (see [`Certificates`]).
    ///
    /// [`Certificates`]: crate::Certificates
    #[must_use]
    pub fn tls(mut self, certificates: &crate::Certificates) -> Self {
        self.is_tls = true;
        self.arg("tls-cert-file", certificates.server_certificate().display())
            .arg("tls-key-file", certificates.server_key().display())
            .arg("tls-ca-cert-file", certificates.ca().display())
            .arg("tls-auth-clients", "optional")
    }

    /// Reads users and what they may do from this file.
    #[must_use]
    pub fn acl_file(self, file: &Path) -> Self {
        self.arg("aclfile", file.display())
    }

    /// Listens on this port, which the caller knows to be free.
    #[must_use]
    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Panics
    /// When the program is missing (naming the package) or does not come up (with its log).
    #[must_use]
    pub fn start(self) -> RedisServer {
        let dir = tempfile::Builder::new().prefix("windlass-redis-").tempdir().expect("a temp dir can be made");
        let (args, is_tls) = (self.args, self.is_tls);
        for _ in 0..PORT_TRIES {
            let port = self.port.unwrap_or_else(free_port);
            match launch(port, dir.path(), &args, is_tls) {
                Ok(child) => return RedisServer { port, dir, args, is_tls, child: Mutex::new(Some(child)) },
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("redis-server did not start:\n{log}"),
            }
        }
        panic!("no free port for redis-server in {PORT_TRIES} tries");
    }
}

impl RedisServer {
    /// A server with the defaults: no persistence, no bound on memory.
    ///
    /// # Panics
    /// As [`RedisServerBuilder::start`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server with options of its own.
    #[must_use]
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// Where it listens: `redis://127.0.0.1:<port>`, or `rediss://localhost:<port>` with TLS. It
    /// stays the same over a restart.
    #[must_use]
    pub fn url(&self) -> String {
        if self.is_tls {
            format!("rediss://localhost:{}", self.port)
        } else {
            format!("redis://127.0.0.1:{}", self.port)
        }
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its working directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it was killed and not restarted.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child().as_ref().expect("the server runs").id()
    }

    /// Ends it at once (SIGKILL), as a crash would. Once dead, nothing happens.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            // Both fail only when it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port and directory, ending it first if it runs.
    ///
    /// # Panics
    /// When it does not come up, or when it is the [`shared_redis`].
    pub fn restart(&self) {
        self.kill();
        assert!(self.dir.path().exists(), "the shared server is not for restarting: start one of your own");
        let child = launch(self.port, self.dir.path(), &self.args, self.is_tls);
        *self.child() = Some(child.unwrap_or_else(|log| panic!("redis-server did not start again:\n{log}")));
    }

    /// Stops its process without ending it (SIGSTOP): connections stay open, nothing answers.
    ///
    /// # Panics
    /// When it does not run.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Panics
    /// When it does not run.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id is a positive i32");
        rustix::process::kill_process(pid, signal).expect("the server is this process's child");
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The one server that tests of a process share, each with a queue or key prefix of its own.
/// It is never flushed, frozen, killed or restarted.
///
/// # Panics
/// As [`RedisServerBuilder::start`].
pub fn shared_redis() -> &'static RedisServer {
    static SHARED: OnceLock<RedisServer> = OnceLock::new();
    SHARED.get_or_init(|| {
        let server = RedisServer::start();
        // Statics are not dropped. It needs no file, so its directory goes now; the kernel
        // ends the server with this process.
        let _ = std::fs::remove_dir_all(server.dir());
        server
    })
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback interface has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Starts a server and waits until it answers; the error is its log.
fn launch(port: u16, dir: &Path, args: &[String], is_tls: bool) -> Result<Child, String> {
    let log_path = dir.join("redis.log");
    let log = File::create(&log_path).expect("the server's temp dir is writable");
    let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let mut command = Command::new(&program);
    let port_text = port.to_string();
    let ports: &[&str] = if is_tls { &["--port", "0", "--tls-port", &port_text] } else { &["--port", &port_text] };
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
        .args(ports)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file handle can be doubled"))
        .stderr(log);
    let mut child = spawn(command).unwrap_or_else(|e| {
        panic!("{program:?} cannot be run ({e}): install the Debian package `redis-server`, or name it in REDIS_SERVER")
    });
    let begun = Instant::now();
    loop {
        // What is said over TLS is not asked here: the log says when it is ready.
        let says_so =
            || std::fs::read_to_string(&log_path).is_ok_and(|log| log.contains("Ready to accept connections"));
        if if is_tls { says_so() } else { is_ready(port, child.id()) } {
            return Ok(child);
        }
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || begun.elapsed() > READY_WITHIN {
            let _ = child.kill();
            let _ = child.wait();
            let text = std::fs::read_to_string(&log_path).unwrap_or_default();
            return Err(format!("{text}\n(port {port}, ended {ended:?}, waited {:?})", begun.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// True when the server on the port answers, has its data loaded, and is the one with this
/// pid: another process may have taken the port.
fn is_ready(port: u16, pid: u32) -> bool {
    match ask(port, "PING") {
        Ok(reply) if reply == "+PONG" => ask(port, "INFO server").is_ok_and(|info| info == format!("process_id:{pid}")),
        // A password or user is set: who it is cannot be asked.
        Ok(reply) => reply.starts_with("-NOAUTH"),
        Err(_) => false,
    }
}

/// One inline command; answers the first line, or the line with the pid out of `INFO`.
pub(crate) fn ask(port: u16, command: &str) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut lines = BufReader::new(stream.take(64 * 1024)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    if !first.starts_with('$') {
        return Ok(first);
    }
    for line in lines {
        let line = line?;
        if line.starts_with("process_id:") {
            return Ok(line);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
