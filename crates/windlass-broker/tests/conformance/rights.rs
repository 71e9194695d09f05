//! The users of `deploy/redis`: what each may do is what the scripts and the code use, no more. This
//! test derives it from the sources and fails when a file says something else; with
//! `WINDLASS_WRITE_ACL=1` it writes the files anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use windlass_broker::redis::{DEFAULT_PREFIX, RedisBroker};
use windlass_broker::{Control as _, Enqueue as _, Inspect as _, Leases as _};
use windlass_jobs::flow::{DependsOn, OnFailure};
use windlass_jobs::{JobId, NewJob, OnClash, Queue, Unique, When};
use windlass_redis::{Cause, Link, Options, cmd};
use windlass_testkit::RedisServer;

/// What a connection says by itself: to hear messages, to know its server, to find the primary and
/// the nodes of a cluster, and scripts by hash. No right to `EVAL` a text of one's own.
const CONNECTION: &[&str] = &[
    "asking",
    "cluster|slots",
    "evalsha",
    "info",
    "ping",
    "role",
    "script|load",
    "select",
    "subscribe",
    "unsubscribe",
];

/// One user: its name, its files, and the keys and channels it may touch.
struct User {
    name: &'static str,
    lua: &'static [&'static str],
    rust: &'static [&'static str],
    /// What the code builds in other ways than `cmd("NAME")`.
    more: &'static [&'static str],
    keys: &'static str,
}

const USERS: &[User] = &[
    // Worker, scheduler and API: everything but what an operator does by hand (`images verify`, `bench`).
    User {
        name: "worker",
        lua: &["windlass-broker/src/redis/lua", "windlass-store/src", "windlass-market/src/prices"],
        rust: &[
            "windlass-broker/src/redis",
            "windlass-store/src",
            "windlass/src/marker.rs",
            "windlass-market/src/prices",
            "windlass-market/src/feed.rs",
        ],
        more: &["srem", "zrange", "zrevrange"],
        keys: "~wl:* ~windlass:* ~price:* ~tick:* ~candle:* ~calm:* ~quotes* &wl:* &quotes*",
    },
    // Puts jobs with their blobs, and asks what became of them.
    User {
        name: "producer",
        lua: &[
            "windlass-broker/src/redis/lua/clash.lua",
            "windlass-broker/src/redis/lua/enqueue.lua",
            "windlass-broker/src/redis/lua/wake.lua",
            "windlass-broker/src/redis/lua/waiting.lua",
            "windlass-broker/src/redis/lua/lanes.lua",
            "windlass-broker/src/redis/lua/moves.lua",
            "windlass-broker/src/redis/lua/rates.lua",
            "windlass-broker/src/redis/lua/flows.lua",
            "windlass-broker/src/redis/lua/get.lua",
            "windlass-broker/src/redis/lua/kinds.lua",
            "windlass-broker/src/redis/lua/list.lua",
            "windlass-broker/src/redis/lua/entries.lua",
            "windlass-broker/src/redis/lua/search.lua",
            "windlass-broker/src/redis/lua/counts.lua",
            "windlass-store/src/artifacts/lua/cache.lua",
        ],
        rust: &["windlass-broker/src/redis", "windlass-store/src/artifacts", "windlass/src/marker.rs"],
        more: &["srem"],
        keys: "~wl:* &wl:*",
    },
    // Looks, and changes nothing.
    User {
        name: "dashboard",
        lua: &[
            "windlass-broker/src/redis/lua/get.lua",
            "windlass-broker/src/redis/lua/list.lua",
            "windlass-broker/src/redis/lua/entries.lua",
            "windlass-broker/src/redis/lua/search.lua",
            "windlass-broker/src/redis/lua/counts.lua",
        ],
        rust: &[],
        more: &["hget", "hgetall", "smembers", "time", "zrange"],
        keys: "~wl:* &wl:*",
    },
    // Another program that reads prices, ticks, candles and bands, in either format.
    User {
        name: "market",
        lua: &[],
        rust: &[],
        more: &[
            "exists",
            "get",
            "hget",
            "hgetall",
            "hmget",
            "mget",
            "pttl",
            "ttl",
            "xrange",
            "xread",
            "xrevrange",
            "zcard",
            "zrange",
            "zrangebyscore",
            "zrevrange",
            "zrevrangebyscore",
        ],
        keys: "~price:* ~tick:* ~candle:* ~calm:*",
    },
    // A feed: quotes into streams and channels whose names begin with `quotes`.
    User { name: "feed", lua: &[], rust: &[], more: &["publish", "xadd", "xlen"], keys: "~quotes* &quotes*" },
];

/// Where an operator's own commands are.
const BY_HAND: &[&str] = &["verify.rs"];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file with this ending at a path, or below it.
fn files(path: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), ending, found);
        }
    } else if path.extension().is_some_and(|own| own == ending) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !BY_HAND.contains(&name.as_ref()) {
            found.push(path.to_owned());
        }
    }
}

/// The words in capitals that stand, quoted, right behind one of these openings.
fn commands(paths: &[&str], ending: &str, openings: &[&str], found: &mut BTreeSet<String>) {
    let mut all = Vec::new();
    for path in paths {
        let path = crates().join(path);
        assert!(path.exists(), "{}", path.display());
        files(&path, ending, &mut all);
    }
    for file in all {
        let text = std::fs::read_to_string(&file).unwrap();
        for opening in openings {
            for rest in text.split(opening).skip(1) {
                let word: String = rest.chars().take_while(char::is_ascii_uppercase).collect();
                if !word.is_empty() && rest[word.len()..].starts_with(['\'', '"']) {
                    found.insert(word.to_ascii_lowercase());
                }
            }
        }
    }
}

/// The line of a user, as its file has to hold it.
fn line(user: &User) -> String {
    let mut names: BTreeSet<String> = CONNECTION.iter().chain(user.more).map(|name| (*name).to_owned()).collect();
    commands(user.lua, "lua", &["call('"], &mut names);
    // Short scripts stand in the Rust sources.
    commands(user.rust, "rs", &["cmd(\"", "call('"], &mut names);
    // Their parts stand in the list above.
    names.remove("script");
    names.remove("cluster");
    let rights: Vec<String> = names.iter().map(|name| format!("+{name}")).collect();
    format!(
        "user windlass-{} on >change-me resetkeys resetchannels {} -@all {}\n",
        user.name,
        user.keys,
        rights.join(" ")
    )
}

fn acl_file(name: &str) -> PathBuf {
    crates().join(format!("../deploy/redis/{name}.acl"))
}

#[test]
fn the_users_have_the_rights_that_are_used() {
    for user in USERS {
        let (file, expected) = (acl_file(user.name), line(user));
        if std::env::var_os("WINDLASS_WRITE_ACL").is_some() {
            std::fs::write(&file, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(found, expected, "deploy/redis/{}.acl: WINDLASS_WRITE_ACL=1 writes it", user.name);
    }
}

/// The shared server with all of them, under any key prefix: what a test of its own needs.
fn server() -> &'static RedisServer {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users.acl");
        // Tests have prefixes of their own; the commands are those of the files.
        let lines: String = USERS.iter().map(line).collect();
        let lines = USERS.iter().fold(lines, |lines, user| lines.replace(user.keys, "~* &*"));
        std::fs::write(&file, format!("user default off\n{lines}")).unwrap();
        let server = RedisServer::builder().acl_file(&file).start();
        // It has been read; nothing else of the server lies on disk.
        let _ = std::fs::remove_dir_all(server.dir());
        server
    })
}

/// How one of the users comes to the server.
pub(crate) fn as_user(name: &str) -> Options {
    Options::from_parts("127.0.0.1", server().port(), &format!("windlass-{name}"), Some("change-me"), 0)
}

fn link(name: &str) -> Link {
    Link::new(as_user(name)).unwrap()
}

/// Puts jobs with every option, first ones and more of the same, into a queue of their own.
async fn every_option(broker: &RedisBroker, parent: &NewJob) {
    let queue = Queue::new("options").unwrap();
    for _ in 0..2 {
        let mut jobs: Vec<NewJob> = (0..8).map(|n| NewJob::new("noop", &n).unwrap()).collect();
        let [tenant, order, conc, rate, all, unique, child, later] = &mut jobs[..] else { unreachable!() };
        tenant.options.tenant = Some("t".into());
        order.options.ordering_key = Some("o".into());
        conc.options.concurrency_key = Some("c".into());
        rate.options.rate_key = Some("r".into());
        all.options.tenant = Some("t".into());
        all.options.ordering_key = Some("o".into());
        all.options.concurrency_key = Some("c".into());
        all.options.rate_key = Some("r".into());
        all.options.expires = When::After(Duration::from_secs(60));
        unique.options.unique =
            Some(Unique { on_clash: OnClash::Replace, debounce: Some(Duration::from_secs(60)), ..Unique::new("u") });
        unique.when = When::After(Duration::from_secs(30));
        let parents = vec![JobId::new(parent.ulid, queue.clone())];
        child.options.depends_on = Some(DependsOn { parents, on_failure: OnFailure::Run });
        later.when = When::After(Duration::from_secs(60));
        broker.enqueue(&queue, &jobs).await.unwrap();
        broker.enqueue(&queue, &jobs).await.unwrap();
    }
}

#[tokio::test]
async fn a_producer_puts_and_reads_and_does_nothing_else() {
    let broker = RedisBroker::new(link("producer"), DEFAULT_PREFIX);
    let queue = Queue::new("rights").unwrap();
    let job = NewJob::new("noop", &1).unwrap();
    broker.enqueue(&queue, std::slice::from_ref(&job)).await.unwrap();
    every_option(&broker, &job).await;
    let id = JobId::new(job.ulid, queue.clone());
    assert!(broker.get(&id).await.unwrap().is_some());
    assert_eq!(broker.counts(&queue).await.unwrap().pending, 1);
    broker.kinds().await.unwrap();

    let reader = RedisBroker::new(link("dashboard"), DEFAULT_PREFIX);
    assert!(reader.get(&id).await.unwrap().is_some());
    assert_eq!(reader.queues().await.unwrap(), [Queue::new("options").unwrap(), queue.clone()]);
    assert_eq!(reader.counts(&queue).await.unwrap().pending, 1);
    reader.list(&queue, windlass_jobs::State::Pending, 0, 10).await.unwrap();
    let refused = reader.enqueue(&queue, &[NewJob::new("noop", &2).unwrap()]).await.unwrap_err();
    assert!(matches!(refused, windlass_broker::Error::Denied { .. }), "{refused:?}");
    assert!(reader.pause(&queue, true).await.is_err());
    assert!(reader.canary("w", "t").await.is_err(), "it speaks on no channel");
}

#[tokio::test]
async fn a_feed_writes_quotes_and_a_program_of_the_market_reads() {
    let call = async |name: &str, words: &[&str]| {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        link(name).call(&command).await
    };
    call("feed", &["XADD", "quotes", "*", "symbol", "A"]).await.unwrap();
    call("feed", &["PUBLISH", "quotes", "{}"]).await.unwrap();
    call("worker", &["XRANGE", "quotes", "-", "+"]).await.unwrap();
    call("market", &["HGETALL", "price:A"]).await.unwrap();
    for (name, words) in [
        ("feed", &["XRANGE", "quotes", "-", "+"][..]),
        ("feed", &["HSET", "price:A", "bid", "1"]),
        ("market", &["HSET", "price:A", "bid", "1"]),
        ("market", &["XADD", "quotes", "*", "a", "b"]),
    ] {
        let error = call(name, words).await.unwrap_err();
        assert_eq!(error.cause(), Cause::NoPermission, "{name} {words:?}: {error:?}");
    }
}

#[tokio::test]
async fn nobody_may_do_what_is_not_used() {
    for user in USERS {
        let link = link(user.name);
        link.ping().await.unwrap();
        for words in [
            &["FLUSHALL"][..],
            &["CONFIG", "GET", "*"],
            &["EVAL", "return 1", "0"],
            &["SCRIPT", "FLUSH"],
            &["KEYS", "*"],
            &["REPLICAOF", "NO", "ONE"],
            &["ACL", "LIST"],
            &["SHUTDOWN"],
        ] {
            let mut command = cmd(words[0]);
            command.arg(&words[1..]);
            let error = link.call(&command).await.expect_err(words[0]);
            assert_eq!(error.cause(), Cause::NoPermission, "{} {words:?}: {error:?}", user.name);
        }
    }
}
