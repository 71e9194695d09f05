//! What the Redis servers of a process say of themselves, and how they are reached, in the Prometheus text
//! format.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use windlass_redis::{Link, LinkStats};

/// How long a server is waited for.
const WITHIN: Duration = Duration::from_secs(1);

/// A figure of `INFO`: name, kind, field, what it is. Of a cluster the sum over its primaries.
type Info = (&'static str, &'static str, &'static str, &'static str);

const INFO: [Info; 9] = [
    ("windlass_redis_clients", "gauge", "connected_clients", "Clients that are connected to the server."),
    ("windlass_redis_blocked_clients", "gauge", "blocked_clients", "Clients that wait in a blocking call."),
    ("windlass_redis_memory_bytes", "gauge", "used_memory", "Memory the server uses."),
    ("windlass_redis_memory_max_bytes", "gauge", "maxmemory", "Memory it may use; 0 without a bound."),
    ("windlass_redis_keyspace_hits_total", "counter", "keyspace_hits", "Reads that found their key."),
    ("windlass_redis_keyspace_misses_total", "counter", "keyspace_misses", "Reads that did not."),
    ("windlass_redis_commands_total", "counter", "total_commands_processed", "Commands the server has done."),
    ("windlass_redis_evicted_keys_total", "counter", "evicted_keys", "Keys thrown away for want of memory."),
    ("windlass_redis_rejected_connections_total", "counter", "rejected_connections", "Connections over maxclients."),
];

/// A figure of the way there.
type Own = (&'static str, &'static str, &'static str, fn(&LinkStats) -> f64);

#[expect(clippy::cast_precision_loss, reason = "the format's values are floats")]
const OWN: [Own; 7] = [
    ("windlass_redis_connections", "gauge", "Connections of this process that stand.", |s| s.connections as f64),
    ("windlass_redis_connections_max", "gauge", "Connections it may have.", |s| s.max_connections as f64),
    ("windlass_redis_calls", "gauge", "Calls under way.", |s| s.calls as f64),
    ("windlass_redis_connect_seconds_count", "counter", "Connections made, TLS included.", |s| s.connects as f64),
    ("windlass_redis_connect_seconds_sum", "counter", "How long that took, added up.", |s| s.connecting.as_secs_f64()),
    ("windlass_redis_connect_failures_total", "counter", "Connections that did not come about.", |s| s.failures as f64),
    ("windlass_redis_login_failures_total", "counter", "Of those, for a wrong user or password.", |s| s.denied as f64),
];

/// Every figure of every server.
pub(crate) async fn render(links: &[(&'static str, Link)]) -> String {
    let looked = join_all(links.iter().map(|(name, link)| async move {
        let info = tokio::time::timeout(WITHIN, link.info("default")).await;
        (*name, info.ok().and_then(Result::ok), link.stats())
    }));
    let looked = looked.await;
    let mut text = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    };
    if !looked.is_empty() {
        head(&mut text, "windlass_redis_up", "gauge", "1 while the server answers.");
    }
    for (server, info, _) in &looked {
        let _ = writeln!(text, "windlass_redis_up{{server=\"{server}\"}} {}", u8::from(info.is_some()));
    }
    for (name, kind, field, help) in INFO {
        let of = |(server, info, _): &(&'static str, Option<Vec<String>>, LinkStats)| {
            Some((*server, sum(info.as_deref()?, field)?))
        };
        let mut found = looked.iter().filter_map(of).peekable();
        if found.peek().is_some() {
            head(&mut text, name, kind, help);
        }
        for (server, value) in found {
            let _ = writeln!(text, "{name}{{server=\"{server}\"}} {value}");
        }
    }
    for (name, kind, help, of) in OWN.iter().filter(|_| !looked.is_empty()) {
        head(&mut text, name, kind, help);
        for (server, _, stats) in &looked {
            let _ = writeln!(text, "{name}{{server=\"{server}\"}} {}", of(stats));
        }
    }
    text
}

/// What all servers say of a field together; none when one does not know it.
fn sum(texts: &[String], field: &str) -> Option<u64> {
    let of = |text: &String| {
        text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse::<u64>().ok())
    };
    texts.iter().map(of).sum()
}
