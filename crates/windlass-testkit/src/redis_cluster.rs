//! A cluster of primaries with a replica each, if wanted.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::redis_server::{RedisServer, ask, free_port};

const READY_WITHIN: Duration = Duration::from_secs(30);
/// After how long without a word a node counts as down.
const NODE_TIMEOUT_MS: u32 = 1_500;
/// A node's bus listens so much above its port.
const BUS_ABOVE: u16 = 10_000;

/// A private Redis Cluster, gone with its test.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts so many primaries, 3 or more, each with so many replicas, and waits until every slot
    /// is served.
    ///
    /// # Panics
    /// When `redis-cli` is missing (naming the package) or the cluster does not come up.
    #[must_use]
    pub fn start(primaries: usize, replicas: usize) -> Self {
        let nodes: Vec<RedisServer> = (0..primaries * (1 + replicas)).map(|_| node()).collect();
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]).args(&addresses);
        command.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]).stdin(Stdio::null());
        let output = command.output().expect("redis-cli can be run: install the Debian package `redis-tools`");
        assert!(output.status.success(), "no cluster: {}", String::from_utf8_lossy(&output.stdout));
        let cluster = Self { nodes };
        cluster.wait_ready();
        cluster
    }

    /// `redis+cluster://host:port,…` of all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The primary that serves a key.
    ///
    /// # Panics
    /// When no node says so in time.
    #[must_use]
    pub fn holder(&self, key: &str) -> &RedisServer {
        let begun = Instant::now();
        loop {
            // It alone answers in place of naming another; a replica names its primary.
            let serves = |node: &&RedisServer| {
                ask(node.port(), &format!("TYPE {key}")).is_ok_and(|reply| reply.starts_with('+'))
            };
            if let Some(node) = self.nodes.iter().find(serves) {
                return node;
            }
            assert!(begun.elapsed() < READY_WITHIN, "nobody serves {key}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Moves the slot of a key, with all that is in it, to another primary, as `redis-cli --cluster
    /// reshard` does it, a few keys at a time.
    ///
    /// # Panics
    /// When a step fails.
    pub fn move_slot_of(&self, key: &str) {
        let slot = number(&self.cli(0, &["CLUSTER", "KEYSLOT", key])).to_string();
        let from = self.nodes.iter().position(|node| node.port() == self.holder(key).port()).expect("one of ours");
        let is_primary = |at: &usize| *at != from && self.cli(*at, &["ROLE"]).starts_with("master");
        let to = (0..self.nodes.len()).find(is_primary).expect("another primary");
        let id = |at: usize| self.cli(at, &["CLUSTER", "MYID"]);
        let (from_id, to_id) = (id(from), id(to));
        self.cli(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        self.cli(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let port = self.nodes[to].port().to_string();
        loop {
            let keys = self.cli(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "50"]);
            if keys.is_empty() {
                break;
            }
            let migrate = [&["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"][..]].concat();
            let words: Vec<&str> = migrate.into_iter().chain(keys.lines()).collect();
            self.cli(from, &words);
        }
        for at in [to, from] {
            self.cli(at, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
    }

    fn cli(&self, at: usize, words: &[&str]) -> String {
        let port = self.nodes[at].port().to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().expect("redis-cli runs");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(!text.starts_with("ERR"), "{words:?}: {text}");
        text
    }

    fn wait_ready(&self) {
        let begun = Instant::now();
        let ready = |at: usize| self.cli(at, &["CLUSTER", "INFO"]).contains("cluster_state:ok");
        while !(0..self.nodes.len()).all(ready) {
            assert!(begun.elapsed() < READY_WITHIN, "the cluster is not ready within {READY_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn number(text: &str) -> u32 {
    text.trim_start_matches("(integer) ").parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

fn node() -> RedisServer {
    // The bus needs a port of its own, which lies above.
    let port = loop {
        let port = free_port();
        if port < u16::MAX - BUS_ABOVE && std::net::TcpListener::bind(("127.0.0.1", port + BUS_ABOVE)).is_ok() {
            break port;
        }
    };
    RedisServer::builder()
        .port(port)
        .arg("cluster-enabled", "yes")
        .arg("cluster-node-timeout", NODE_TIMEOUT_MS)
        .arg("cluster-config-file", "nodes.conf")
        .arg("repl-diskless-sync-delay", 0)
        .start()
}
