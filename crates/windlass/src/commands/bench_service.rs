//! `windlass bench api` and `windlass bench cache`: what the services beside the queue can do on this
//! machine. Clients and server share its cores.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use windlass_api::keys::{Book, NewKey};
use windlass_jobs::{Queue, new_ulid};
use windlass_redis::Link;
use windlass_store::{Cache, Caching, Key, Namespace};

use super::{api, report};
use crate::cli::{BenchApi, BenchCache};
use crate::runtime::Stores;
use crate::settings::Settings;

/// The queue of the bench.
const QUEUE: &str = "probe";
/// What is posted.
const JOB: &str = r#"{"kind":"probe.noop","args":{}}"#;
/// Values that are read.
const VALUES: usize = 1_000;
/// Requests all clients together send per second when they do not send as fast as they can.
const PACE: u64 = 8_000;

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).context("histogram")
}

fn figures(all: &Histogram<u64>, took: Duration) -> Value {
    let ms = |quantile: f64| {
        let us = u32::try_from(all.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        f64::from(us) / 1_000.0
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown in whole requests")]
    let rate = (all.len() as f64 / took.as_secs_f64()).round();
    json!({ "requests": all.len(), "per_s": rate, "p50_ms": ms(0.5), "p99_ms": ms(0.99), "p999_ms": ms(0.999) })
}

fn say(what: &str, figures: &Value) {
    report::line(format_args!(
        "  {what:<34} {:>8}/s   p50 {:>7} ms   p99 {:>7} ms",
        figures["per_s"], figures["p50_ms"], figures["p99_ms"]
    ));
}

fn elapsed_us(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Posts jobs over HTTP, with a key, on connections that stay open; then counts what is queued.
pub(crate) async fn api(settings: &Settings, args: &BenchApi, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut settings = settings.clone();
    // A prefix or a folder of its own: the bench neither sees nor touches anyone's jobs.
    let tag = new_ulid().to_string().to_ascii_lowercase();
    settings.queue_prefix = format!("wlbench-{}", &tag[16..]);
    let scratch = settings.data_dir.join(format!("bench-{tag}"));
    settings.data_dir.clone_from(&scratch);
    let stores = Stores::open(&settings).await?;
    let new = NewKey { name: "bench".into(), scopes: vec!["jobs:*".parse()?], ..NewKey::default() };
    let (key, _) = Book::new(Arc::clone(&stores.records)).create(new).await?;
    let listener = api::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let server = api::Server::on(listener, &settings, &stores, api::Beside::default())?;
    let measured = post_all(&server, &key, args).await;
    let queue = Queue::new(QUEUE)?;
    let waiting = stores.broker.counts(&queue).await?.enqueued_total;
    clean(&settings).await?;
    server.stop().await?;
    let _ = tokio::fs::remove_dir_all(&scratch).await;
    let measured = measured?;
    let posted = measured["requests"].as_u64().unwrap_or(0);
    ensure!(waiting == posted, "{posted} jobs were accepted, and {waiting} are queued");
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    if as_json {
        report::json_line(&json!({ "store": stores.place, "build": build, "post_task": measured }));
    } else {
        report::line(format_args!("POST /api/tasks on {} ({build}), {} connections", stores.place, args.connections));
        say("one job each", &measured);
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the keys of the bench away.
async fn clean(settings: &Settings) -> anyhow::Result<()> {
    let Some(options) = &settings.redis else { return Ok(()) };
    let link = Link::new(options.clone())?;
    let pattern = format!("{}:*", settings.queue_prefix);
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = windlass_redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1_000);
        let reply = link.call(&scan).await?;
        let (next, keys): (String, Vec<String>) = windlass_redis::from_redis_value(reply)?;
        if !keys.is_empty() {
            let mut unlink = windlass_redis::cmd("UNLINK");
            keys.iter().for_each(|key| {
                unlink.arg(key);
            });
            link.call(&unlink).await?;
        }
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}

async fn post_all(server: &api::Server, key: &str, args: &BenchApi) -> anyhow::Result<Value> {
    let at = server.address();
    let request = format!(
        "POST /api/tasks HTTP/1.1\r\nhost: {at}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{JOB}",
        JOB.len()
    );
    let mut clients = JoinSet::new();
    let begun = Instant::now();
    let end = begun + Duration::from_secs(args.seconds);
    for _ in 0..args.connections {
        clients.spawn(client(at, request.clone(), end));
    }
    let mut all = histogram()?;
    while let Some(one) = clients.join_next().await {
        all.add(one??).context("histogram")?;
    }
    Ok(figures(&all, begun.elapsed()))
}

/// One connection, one request after the other.
async fn client(at: SocketAddr, request: String, end: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut stream = TcpStream::connect(at).await.context("connect")?;
    stream.set_nodelay(true)?;
    let (mut taken, mut buffer) = (histogram()?, vec![0; 16 * 1024]);
    while Instant::now() < end {
        let sent_at = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        while !is_whole(&buffer[..filled]) {
            let n = stream.read(&mut buffer[filled..]).await?;
            ensure!(n > 0, "the API closed the connection");
            filled += n;
        }
        if !buffer.starts_with(b"HTTP/1.1 202") {
            bail!("{}", String::from_utf8_lossy(&buffer[..filled]));
        }
        taken.record(elapsed_us(sent_at)).context("histogram")?;
    }
    Ok(taken)
}

/// True when an answer with a `Content-Length` is there to its end.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

/// Reads values that are there from many clients: at an even pace, then as fast as they can.
pub(crate) async fn cache(settings: &Settings, args: &BenchCache, as_json: bool) -> anyhow::Result<ExitCode> {
    let link = settings.cache_redis.clone().map(Link::new).transpose()?;
    let place = settings.cache_redis.as_ref().map_or_else(|| "this process".to_owned(), |options| options.shown());
    let mut options = settings.caching.clone();
    options.prefix = format!("wlbench-{}", &new_ulid().to_string()[16..]);
    let cache = Caching::new(link, &options).cache;
    let keys: Vec<Key> =
        (0..VALUES).map(|n| Key::new(Namespace::general(), &n.to_string())).collect::<Result<_, _>>()?;
    for key in &keys {
        let kept = cache.set(key, &"x".repeat(100), Some(Duration::from_secs(600))).await?;
        ensure!(!kept.degraded, "Redis does not answer");
    }
    let paced = read_all(&cache, &keys, args, Some(PACE)).await?;
    let fast = read_all(&cache, &keys, args, None).await?;
    cache.clear(&Namespace::general()).await;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    if as_json {
        report::json_line(&json!({ "store": place, "build": build, "paced": paced, "fast": fast }));
    } else {
        report::line(format_args!("cache hits on {place} ({build}), {} clients, 100 bytes", args.clients));
        say("at an even pace", &paced);
        say("as fast as they can", &fast);
    }
    Ok(ExitCode::SUCCESS)
}

async fn read_all(cache: &Cache, keys: &[Key], args: &BenchCache, per_s: Option<u64>) -> anyhow::Result<Value> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for n in 0..args.clients {
        let (cache, keys) = (cache.clone(), keys.to_vec());
        let (share, count) = (u32::try_from(n).unwrap_or(0), u32::try_from(args.clients).unwrap_or(1));
        let every = per_s.map(|per_s| Duration::from_micros(1_000_000 * args.clients as u64 / per_s));
        clients.spawn(async move {
            let mut taken = histogram()?;
            let mut at = n;
            // Spread, so that they do not all ask at once.
            tokio::time::sleep(every.unwrap_or_default() * share / count).await;
            let mut ticks = every.map(tokio::time::interval);
            while Instant::now() < end {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                at = (at + 1) % keys.len();
                let asked_at = Instant::now();
                let found = cache.find(&keys[at]).await;
                taken.record(elapsed_us(asked_at)).context("histogram")?;
                ensure!(found.value.is_some() && !found.degraded, "a value that is kept was not found on Redis");
            }
            Ok::<_, anyhow::Error>(taken)
        });
    }
    let mut all = histogram()?;
    while let Some(one) = clients.join_next().await {
        all.add(one??).context("histogram")?;
    }
    Ok(figures(&all, begun.elapsed()))
}
