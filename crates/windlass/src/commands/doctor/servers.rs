//! The Redis servers: whether they answer, what keeps them from it, how they are set up, how far they
//! are, and how their clock goes; and PostgreSQL.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use windlass_redis::{FromRedisValue as _, Link, Options, cmd};

use super::Finding;
use crate::eviction::Eviction;
use crate::marker::Marker;
use crate::settings::Settings;

/// Round trips that are timed.
const PINGS: usize = 20;
/// A median round trip above this makes every job slow.
const SLOW: Duration = Duration::from_millis(5);
/// How long a connection to PostgreSQL may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A difference of clocks above this shows in every time that is shown.
const CLOCK_OFF: Duration = Duration::from_secs(2);
/// Of its memory a server should keep so many hundredths free.
const MEMORY_PERCENT: u64 = 80;

/// What the queue's server says of itself, in `INFO`; of a cluster one text for each primary.
pub(super) struct QueueServer(pub(super) Vec<String>);

impl QueueServer {
    /// What every server says of a field, each only once.
    pub(super) fn each(&self, field: &str) -> Vec<&str> {
        each(&self.0, field)
    }
}

/// Looks at every server that the settings name, each only once.
pub(super) async fn all(settings: &Settings, findings: &mut Vec<Finding>) -> QueueServer {
    let mut queue = QueueServer(Vec::new());
    if let Some(options) = &settings.redis {
        queue.0 = server("redis", options, findings).await;
        if !queue.0.is_empty()
            && let Ok(link) = Link::new(options.clone())
        {
            of_the_queue(settings, &link, &queue, findings).await;
        }
    }
    let others = [("cache_redis", settings.cache_redis.as_ref()), ("image_redis", settings.images.own_redis())];
    for (name, options) in others {
        if let Some(options) = options.filter(|own| settings.redis.as_ref().is_none_or(|queue| !queue.same_place(own)))
        {
            server(name, options, findings).await;
        }
    }
    if let Some(url) = &settings.market_database_url {
        findings.push(postgres(&url.0).await);
    }
    queue
}

/// Version and latency; or what keeps it from answering, and what to do about that.
async fn server(name: &'static str, options: &Options, findings: &mut Vec<Finding>) -> Vec<String> {
    let asked = async {
        let link = Link::new(options.clone())?;
        let texts = link.info("default").await?;
        let mut times = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            let begun = Instant::now();
            link.ping().await?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        Ok::<_, windlass_redis::Error>((texts, times[PINGS / 2], times[PINGS - 1]))
    };
    match asked.await {
        Ok((texts, median, slowest)) => {
            let versions = each(&texts, "redis_version").join(", ");
            let found =
                format!("{}: version {versions}, answers in {median:.1?}, at most {slowest:.1?}", options.shown());
            findings.push(if median > SLOW {
                Finding::warn(name, format!("{found}; every job waits for it several times: bring it nearer"))
            } else {
                Finding::ok(name, found)
            });
            texts
        }
        Err(e) => {
            let advice = crate::redis_settings::advice(e.cause(), options.is_tls());
            let advice = advice.map_or(String::new(), |advice| format!("; {advice}"));
            findings.push(Finding::fail(name, format!("{:#}{advice}", anyhow::Error::new(e))));
            Vec::new()
        }
    }
}

/// What matters of the server that must lose nothing.
async fn of_the_queue(settings: &Settings, link: &Link, server: &QueueServer, findings: &mut Vec<Finding>) {
    let eviction = server.0.iter().map(|text| Eviction::read(text)).max().unwrap_or(Eviction::Untold);
    findings.push(match eviction.advice() {
        None => Finding::ok("maxmemory_policy", "noeviction"),
        Some(advice) if matches!(eviction, Eviction::Any(_)) => Finding::fail("maxmemory_policy", advice),
        Some(advice) => Finding::warn("maxmemory_policy", advice),
    });
    findings.push(memory(server));
    findings.push(persistence(server));
    if let Some(finding) = clock(link).await {
        findings.push(finding);
    }
    match Marker::new(settings).foreign(link).await {
        Ok(Some(foreign)) => findings.push(Finding::fail("marker", foreign)),
        Ok(None) => {}
        Err(e) => findings.push(Finding::error("marker", &e.into())),
    }
}

fn memory(server: &QueueServer) -> Finding {
    let number = |text: &str, field: &str| {
        let text = std::slice::from_ref(&text.to_owned()).to_vec();
        each(&text, field).first().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    let most = server.0.iter().map(|text| (number(text, "used_memory"), number(text, "maxmemory")));
    let Some((used, bound)) = most.max_by_key(|(used, bound)| used * 100 / (*bound).max(1)) else {
        return Finding::warn("memory", "the server does not say");
    };
    let mib = |bytes: u64| bytes / (1024 * 1024);
    match bound {
        0 => Finding::ok("memory", format!("{} MiB used, without a bound", mib(used))),
        bound if used * 100 > bound * MEMORY_PERCENT => Finding::warn(
            "memory",
            format!(
                "{} of {} MiB used; when it is full jobs are refused: raise maxmemory, or drain",
                mib(used),
                mib(bound)
            ),
        ),
        bound => Finding::ok("memory", format!("{} of {} MiB used", mib(used), mib(bound))),
    }
}

/// Whether what was accepted outlives the server.
pub(super) fn persistence(server: &QueueServer) -> Finding {
    let name = "persistence";
    let set = "set appendonly yes, appendfsync everysec or always";
    let failed = |field: &str| server.each(field).into_iter().any(|status| status != "ok");
    if failed("aof_last_write_status") || failed("aof_last_bgrewrite_status") {
        return Finding::fail(name, "the append-only file could not be written: look at the server's disk and log");
    }
    if failed("rdb_last_bgsave_status") {
        return Finding::fail(name, "the last snapshot failed: look at the server's disk and log");
    }
    match server.each("aof_enabled").as_slice() {
        ["1"] => Finding::ok(name, "append-only file"),
        [] => Finding::warn(name, format!("the server does not say whether it keeps a file; {set}")),
        _ => Finding::warn(name, format!("no append-only file: accepted jobs are lost when the server dies; {set}")),
    }
}

/// How far the server's clock, which decides, is from this machine's, which only shows times.
async fn clock(link: &Link) -> Option<Finding> {
    let reply = link.call(&cmd("TIME")).await.ok()?;
    let (seconds, micros) = <(u64, u64)>::from_redis_value(reply).ok()?;
    let server = Duration::from_secs(seconds) + Duration::from_micros(micros);
    let own = SystemTime::UNIX_EPOCH.elapsed().ok()?;
    let off = server.abs_diff(own);
    let found = format!("the server's clock and this machine's differ by {off:.1?}");
    Some(if off > CLOCK_OFF {
        let advice = "jobs run by the server's; let NTP set both, so that what is shown is right";
        Finding::warn("clock", format!("{found}; {advice}"))
    } else {
        Finding::ok("clock", found)
    })
}

/// Whether the database of positions answers.
async fn postgres(url: &str) -> Finding {
    let asked = async {
        let store =
            windlass_market::positions::Positions::postgres_lazy(url, &windlass_market::positions::Options::default())?;
        // The pool hides why it has no connection.
        if let Some(address) = store.place().strip_prefix("postgres://").filter(|address| !address.starts_with('/')) {
            let connecting = tokio::net::TcpStream::connect(address.to_owned());
            let advice = || format!("{address}: is it started, and is WINDLASS_MARKET_DATABASE_URL right?");
            tokio::time::timeout(CONNECT_WITHIN, connecting).await.with_context(advice)?.with_context(advice)?;
        }
        let begun = Instant::now();
        store.now_ms().await?;
        anyhow::Ok(format!("{} answers in {:.1?}", store.place(), begun.elapsed()))
    };
    Finding::of("market_database", asked.await)
}

fn each<'a>(texts: &'a [String], field: &str) -> Vec<&'a str> {
    let of =
        |text: &'a String| text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim);
    let mut found: Vec<&str> = texts.iter().filter_map(of).collect();
    found.dedup();
    found
}
