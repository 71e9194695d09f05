//! A primary, replicas and three sentinels that watch over them.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::spawn;
use crate::redis_server::{RedisServer, ask, free_port};

/// What sentinels call the service.
const SERVICE: &str = "mymaster";
/// After how long without a word a server counts as down.
const DOWN_AFTER_MS: u32 = 1_000;
const SENTINELS: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(40);
/// A fail-over that has not come by then was given up.
const AGAIN_AFTER: Duration = Duration::from_secs(6);

/// Redis servers of which one is the primary, and three sentinels of which two decide that it is
/// down. All of them end with their test.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The first was the primary at the beginning.
    servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    child: Mutex<Option<Child>>,
    dir: TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl RedisSentinels {
    /// Starts a primary with so many replicas and waits until the sentinels know all of them.
    ///
    /// # Panics
    /// When they do not come up in time.
    #[must_use]
    pub fn start(replicas: usize) -> Self {
        let options = || RedisServer::builder().arg("repl-diskless-sync-delay", 0).arg("repl-ping-replica-period", 1);
        let primary = options().start();
        let mut servers = vec![primary];
        for _ in 0..replicas {
            servers.push(options().arg("replicaof", format!("127.0.0.1 {}", servers[0].port())).start());
        }
        let sentinels = (0..SENTINELS).map(|_| Sentinel::start(servers[0].port())).collect();
        let set = Self { servers, sentinels };
        set.wait("the sentinels know all servers", || set.sentinels.iter().all(|sentinel| sentinel.knows(replicas)));
        set
    }

    /// `redis+sentinel://host:port,host:port,host:port/mymaster`.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/{SERVICE}", hosts.join(","))
    }

    pub(crate) fn dirs(&self) -> impl Iterator<Item = std::path::PathBuf> + '_ {
        let servers = self.servers.iter().map(RedisServer::dir);
        servers.chain(self.sentinels.iter().map(|sentinel| sentinel.dir.path())).map(std::path::Path::to_owned)
    }

    /// The servers; which of them is the primary may change.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The server that the sentinels call the primary now.
    ///
    /// # Panics
    /// When none of them answers.
    #[must_use]
    pub fn primary(&self) -> &RedisServer {
        let port = self.sentinels.iter().find_map(Sentinel::primary_port).expect("a sentinel answers");
        self.servers.iter().find(|server| server.port() == port).expect("it is one of ours")
    }

    /// Has the sentinels make a replica the primary while the old one lives.
    ///
    /// # Panics
    /// When no sentinel does it in time.
    pub fn fail_over(&self) {
        let before = self.primary().port();
        let mut said: Option<Instant> = None;
        // One that has begun is given up when no replica is good enough, as shortly after the one before.
        self.wait("another server is the primary", || {
            if said.is_none_or(|at| at.elapsed() > AGAIN_AFTER) {
                let begins = |sentinel: &Sentinel| ask(sentinel.port, &format!("SENTINEL FAILOVER {SERVICE}"));
                if self.sentinels.iter().any(|sentinel| begins(sentinel).is_ok_and(|reply| reply == "+OK")) {
                    said = Some(Instant::now());
                }
            }
            self.primary().port() != before
        });
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < READY_WITHIN, "not within {READY_WITHIN:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Sentinel {
    fn start(primary: u16) -> Self {
        let dir = tempfile::Builder::new().prefix("windlass-sentinel-").tempdir().expect("a temp dir can be made");
        let port = free_port();
        let file = dir.path().join("sentinel.conf");
        // Sentinels write what they learn into this file.
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n\
             sentinel failover-timeout {SERVICE} 5000\nsentinel parallel-syncs {SERVICE} 2\n"
        );
        std::fs::write(&file, text).expect("the temp dir is writable");
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command.arg(&file).args(["--sentinel", "--logfile", "sentinel.log"]).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawn(command).expect("redis-server can be run");
        let sentinel = Self { port, child: Mutex::new(Some(child)), dir };
        let begun = Instant::now();
        while !ask(port, "PING").is_ok_and(|reply| reply == "+PONG") {
            assert!(begun.elapsed() < READY_WITHIN, "a sentinel did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        sentinel
    }

    fn primary_port(&self) -> Option<u16> {
        field(self.port, "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster", |lines| lines.last()?.parse().ok())
    }

    /// True when it knows the replicas and the other sentinels.
    fn knows(&self, replicas: usize) -> bool {
        let told = |name: &str, lines: &[String]| {
            let at = lines.iter().position(|line| line == name)?;
            lines.get(at + 2)?.parse::<usize>().ok()
        };
        let all = |lines: &[String]| Some((told("num-slaves", lines)?, told("num-other-sentinels", lines)?));
        field(self.port, "SENTINEL MASTER mymaster", all).is_some_and(|found| found == (replicas, SENTINELS - 1))
    }
}

/// All lines of a reply, read for a moment, and what is looked for in them.
fn field<T>(port: u16, command: &str, find: impl FnOnce(&[String]) -> Option<T>) -> Option<T> {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    // QUIT ends the reply: the server closes behind it.
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).ok()?;
    let mut lines: Vec<String> = BufReader::new(stream).lines().map_while(Result::ok).collect();
    lines.pop();
    find(&lines)
}
