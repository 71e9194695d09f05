//! Images: what is kept where, for how long, and that the counters tell the truth.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use windlass_jobs::Timestamp;
use windlass_redis::{Link, Options, Value, cmd};
use windlass_store::images::{
    Cursor, Evict, Facts, FileImages, Health, ImageId, ImageOptions, Images, NewImage, Place, RedisImages, Removed,
};
use windlass_store::{Digest, Error};
use windlass_testkit::RedisServer;

use crate::{prefix, redis_link};

fn image(symbol: &str, bytes: &[u8]) -> NewImage {
    NewImage {
        id: ImageId::new(),
        bytes: Bytes::copy_from_slice(bytes),
        thumb: None,
        facts: Facts {
            symbol: symbol.to_owned(),
            interval: "1d".to_owned(),
            format: "png".to_owned(),
            ..Facts::default()
        },
        created_at: None,
        max_age: None,
    }
}

/// A picture of `size` bytes that no other number has.
fn picture(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(size.max(8), 7);
    bytes
}

fn ago(hours: u64) -> Option<Timestamp> {
    Some(Timestamp(Timestamp::now().0 - windlass_jobs::millis(Duration::from_secs(hours * 3600))))
}

fn link_to(server: &RedisServer) -> Link {
    let mut options = Options::from_url(&server.url()).unwrap();
    options.response_timeout = Duration::from_millis(500);
    options.connect_timeout = Duration::from_millis(500);
    Link::new(options).unwrap()
}

/// §9.13: counters against a recount, and the sets against each other.
async fn check_counts(images: &RedisImages, link: &Link, prefix: &str) {
    let (verified, stats) = (images.verify(false).await.unwrap(), images.stats().await.unwrap());
    assert!(verified.is_right(), "{verified:?}");
    assert_eq!((stats.bytes, stats.count), (verified.bytes, verified.images), "{stats:?}");
    assert_eq!(stats.mean_ms, (stats.count > 0).then(|| verified.created_sum / stats.count as i64));
    for set in ["age", "size"] {
        let mut call = cmd("ZCARD");
        call.arg(format!("{prefix}:{{img}}:{set}"));
        assert_eq!(link.call(&call).await.unwrap(), Value::Int(stats.count as i64), "{set}");
    }
}

#[tokio::test]
async fn an_image_is_found_by_id_spec_symbol_and_age() {
    let (link, prefix) = (redis_link(), prefix());
    let redis = RedisImages::new(link.clone(), &prefix, ImageOptions::default());
    let dir = tempfile::tempdir().unwrap();
    for store in [
        Images::new(
            Some(redis.clone()),
            FileImages::new(&dir.path().join("a"), ImageOptions::default()),
            ImageOptions::default(),
        ),
        Images::new(None, FileImages::new(&dir.path().join("b"), ImageOptions::default()), ImageOptions::default()),
    ] {
        let mut first = image("NIFTY 50", b"first");
        first.facts.spec = "s1".to_owned();
        first.thumb = Some(Bytes::from_static(b"small"));
        first.created_at = ago(2);
        let (second, third) = (image("M&M", b"second"), image("NIFTY 50", b"third"));
        for new in [&first, &second, &third] {
            store.put(new).await.unwrap();
        }
        let kept = store.get(&first.id).await.unwrap().unwrap().meta;
        assert_eq!((kept.facts.clone(), kept.bytes, kept.thumb_bytes), (first.facts.clone(), 5, 5));
        assert_eq!(kept.created_at, first.created_at.unwrap());
        assert_eq!(kept.expires_at.since(kept.created_at), Duration::from_secs(24 * 3600));
        assert_eq!(store.bytes(&kept.sha).await.unwrap().unwrap(), "first");
        assert_eq!(store.bytes(&kept.thumb.unwrap()).await.unwrap().unwrap(), "small");
        assert_eq!(store.find("s1").await.unwrap().unwrap().meta.id, first.id);
        assert!(store.find("s2").await.unwrap().is_none());
        let page = store.list(Some("NIFTY 50"), None, 1).await.unwrap();
        assert_eq!(page.images[0].id, third.id);
        let cursor: Cursor = page.next.unwrap().to_string().parse().unwrap();
        let rest = store.list(Some("NIFTY 50"), Some(&cursor), 5).await.unwrap();
        assert_eq!((rest.images[0].id.clone(), rest.images.len(), rest.next), (first.id.clone(), 1, None));
        assert_eq!(store.list(None, None, 50).await.unwrap().images.len(), 3);
        assert_eq!(store.clear(Some("NIFTY 50"), Some("1h")).await.unwrap(), Removed::default());
        assert_eq!(store.clear(Some("NIFTY 50"), Some("1d")).await.unwrap(), Removed { images: 2, bytes: 15 });
        assert!(store.get(&first.id).await.unwrap().is_none() && store.find("s1").await.unwrap().is_none());
        assert!(store.delete(&second.id).await.unwrap() && !store.delete(&second.id).await.unwrap());
    }
    check_counts(&redis, &link, &prefix).await;
    let stats = redis.stats().await.unwrap();
    assert_eq!((stats.puts, stats.deleted, stats.count, stats.bytes), (3, 3, 0, 0));
}

/// §9.15: bytes without an image count nothing and go by themselves; equal bytes are kept once
/// and as long as anybody has them.
#[tokio::test]
async fn bytes_are_held_by_images_alone() {
    let (link, prefix) = (redis_link(), prefix());
    let redis = RedisImages::new(link.clone(), &prefix, ImageOptions::default());
    let key = format!("{prefix}:{{img}}:b:{}", Digest::of(b"loose").hex());
    let mut set = cmd("SET");
    set.arg(&key).arg("loose").arg("NX").arg("PX").arg(600_000);
    link.call(&set).await.unwrap();
    assert_eq!(redis.stats().await.unwrap().bytes, 0);
    let (one, two) = (image("A", b"same"), image("B", b"same"));
    redis.put(&one).await.unwrap();
    redis.put(&two).await.unwrap();
    let stats = redis.stats().await.unwrap();
    assert_eq!((stats.count, stats.bytes, stats.dedup), (2, 4, 1));
    assert!(redis.delete(&one.id).await.unwrap());
    assert_eq!(redis.bytes(&Digest::of(b"same")).await.unwrap().unwrap(), "same");
    assert!(redis.delete(&two.id).await.unwrap());
    assert!(redis.bytes(&Digest::of(b"same")).await.unwrap().is_none());
    check_counts(&redis, &link, &prefix).await;
    assert_eq!(redis.verify(false).await.unwrap().loose_blobs, 1);
}

#[tokio::test]
async fn a_repeated_put_changes_nothing() {
    let (link, prefix) = (redis_link(), prefix());
    let redis = RedisImages::new(link.clone(), &prefix, ImageOptions::default());
    let new = image("A", b"once");
    let first = redis.put(&new).await.unwrap();
    assert_eq!(redis.put(&new).await.unwrap(), first);
    assert_eq!(redis.stats().await.unwrap().puts, 1);
    check_counts(&redis, &link, &prefix).await;
}

/// §9.18: what makes room, and that reasons are counted apart.
#[tokio::test]
async fn the_cap_holds_after_every_put() {
    for (evict, expected) in
        [(Evict::Oldest, vec![2, 3, 4]), (Evict::Largest, vec![0, 1, 2, 4]), (Evict::Lru, vec![0, 3, 4])]
    {
        let (link, prefix) = (redis_link(), prefix());
        let options = ImageOptions { max_total_bytes: 1000, evict, ..ImageOptions::default() };
        let redis = RedisImages::new(link.clone(), &prefix, options);
        let sizes = [200, 200, 290, 300, 310];
        let mut ids = Vec::new();
        for (index, size) in sizes.into_iter().enumerate() {
            let new = NewImage { created_at: ago(10 - index as u64), ..image("A", &picture(index as u64, size)) };
            redis.put(&new).await.unwrap();
            ids.push(new.id);
            assert!(redis.stats().await.unwrap().bytes <= 1000, "{evict:?} after {index}");
            if index == 3 {
                // The first is read: least recently used are the second and the third.
                age_reads(&link, &prefix, &ids).await;
                redis.get(&ids[0]).await.unwrap().unwrap();
            }
        }
        let mut left = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            if redis.get(id).await.unwrap().is_some() {
                left.push(index);
            }
        }
        assert_eq!(left, expected, "{evict:?}");
        let stats = redis.stats().await.unwrap();
        let evicted = 5 - expected.len() as u64;
        assert_eq!((stats.evicted_size, stats.evicted_age), (evicted, 0), "{evict:?}");
        check_counts(&redis, &link, &prefix).await;
    }
}

/// Makes every image read two minutes ago, in order: reads are noted once a minute.
async fn age_reads(link: &Link, prefix: &str, ids: &[ImageId]) {
    for (index, id) in ids.iter().enumerate() {
        let mut call = cmd("ZADD");
        let at = Timestamp::now().0 - 200_000 + index as i64;
        call.arg(format!("{prefix}:{{img}}:use")).arg("XX").arg(at).arg(id.as_str());
        link.call(&call).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_too_large_or_too_old_is_refused() {
    let (link, prefix) = (redis_link(), prefix());
    let options = ImageOptions { max_image_bytes: 100, ..ImageOptions::default() };
    let redis = RedisImages::new(link.clone(), &prefix, options.clone());
    let large = redis.put(&image("A", &picture(1, 101))).await;
    assert!(matches!(large, Err(Error::TooLarge { bytes: 101, max: 100 })), "{large:?}");
    let old = redis.put(&NewImage { created_at: ago(25), ..image("A", b"old") }).await;
    assert!(matches!(old, Err(Error::Expired)), "{old:?}");
    assert_eq!(redis.stats().await.unwrap().refused, 1);
    let dir = tempfile::tempdir().unwrap();
    let files = FileImages::new(dir.path(), options);
    assert!(matches!(files.put(&image("A", &picture(1, 101))).await, Err(Error::TooLarge { .. })));
    check_counts(&redis, &link, &prefix).await;
}

#[tokio::test]
async fn a_sweep_takes_what_is_too_old() {
    let (link, prefix) = (redis_link(), prefix());
    let dir = tempfile::tempdir().unwrap();
    let long = ImageOptions { max_age: Duration::from_secs(100 * 3600), ..ImageOptions::default() };
    let redis = RedisImages::new(link.clone(), &prefix, long.clone());
    let files = FileImages::new(dir.path(), long);
    for hours in [1, 20, 30, 40] {
        let new = NewImage { created_at: ago(hours), ..image("A", &picture(hours, 10)) };
        redis.put(&new).await.unwrap();
        files.put(&new).await.unwrap();
    }
    let short = ImageOptions { max_age: Duration::from_secs(24 * 3600), ..ImageOptions::default() };
    let redis = RedisImages::new(link.clone(), &prefix, short.clone());
    assert_eq!(redis.sweep().await.unwrap(), Removed { images: 2, bytes: 20 });
    let stats = redis.stats().await.unwrap();
    assert_eq!((stats.evicted_age, stats.evicted_size, stats.count), (2, 0, 2));
    check_counts(&redis, &link, &prefix).await;
    let files = FileImages::new(dir.path(), short);
    assert_eq!(files.sweep().await.unwrap(), Removed { images: 2, bytes: 20 });
    assert_eq!(files.stats().await.unwrap().count, 2);
}

/// §9.13: random puts, deletes, reads and sweeps from four clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_survive_four_clients() {
    let (link, prefix) = (redis_link(), prefix());
    let options = ImageOptions { max_total_bytes: 20_000, ..ImageOptions::default() };
    let redis = RedisImages::new(link.clone(), &prefix, options);
    let client = |seed: u64| {
        let redis = RedisImages::new(redis_link(), &prefix, redis.options().clone());
        async move {
            let mut state = seed;
            let mut next = move |below: u64| {
                // A linear congruential step (Knuth): enough to mix calls.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let mut ids: Vec<ImageId> = Vec::new();
            for _ in 0..2_500 {
                match next(10) {
                    0..6 => {
                        let (number, symbol) = (next(60), next(3));
                        let mut new = image(&format!("S{symbol}"), &picture(number, 100 + number as usize * 10));
                        new.thumb = (next(2) == 0).then(|| Bytes::from(picture(next(5) + 1000, 40)));
                        new.facts.spec = format!("spec{number}");
                        redis.put(&new).await.unwrap();
                        ids.push(new.id);
                        // Four clients may each be one image over for the moment of their put.
                        assert!(redis.stats().await.unwrap().bytes <= 20_000 + 4 * 800);
                    }
                    6..8 if !ids.is_empty() => {
                        let id = ids.swap_remove(next(ids.len() as u64) as usize);
                        redis.delete(&id).await.unwrap();
                    }
                    8 => drop(redis.sweep().await.unwrap()),
                    _ => drop(redis.find(&format!("spec{}", next(60))).await.unwrap()),
                }
            }
        }
    };
    tokio::join!(client(1), client(2), client(3), client(4));
    check_counts(&redis, &link, &prefix).await;
    let stats = redis.stats().await.unwrap();
    assert!(stats.bytes <= 20_000 && stats.evicted_size > 0 && stats.dedup > 0, "{stats:?}");
}

/// §9.14: neither KEYS nor SCAN on any way but the recount by hand.
#[tokio::test]
async fn nothing_scans() {
    let server = RedisServer::start();
    let link = link_to(&server);
    let redis = RedisImages::new(link.clone(), "wl", ImageOptions::default());
    let new = image("A", b"bytes");
    redis.put(&new).await.unwrap();
    redis.get(&new.id).await.unwrap();
    redis.list(Some("A"), None, 10).await.unwrap();
    redis.sweep().await.unwrap();
    redis.stats().await.unwrap();
    redis.clear(None, None).await.unwrap();
    let mut info = cmd("INFO");
    info.arg("commandstats");
    let text = format!("{:?}", link.call(&info).await.unwrap());
    assert!(text.contains("cmdstat_evalsha"), "{text}");
    for scan in ["cmdstat_keys", "cmdstat_scan", "cmdstat_hscan", "cmdstat_zscan"] {
        assert!(!text.contains(scan), "{scan}");
    }
}

fn tiered(link: Link, dir: &Path) -> Images {
    let options = ImageOptions::default();
    Images::new(Some(RedisImages::new(link, "wl", options.clone())), FileImages::new(dir, options.clone()), options)
}

/// §9.16: nothing is lost while Redis is away, and everything is back when it is.
#[tokio::test]
async fn images_outlive_an_outage() {
    let server = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let images = tiered(link_to(&server), dir.path());
    let mut ids = Vec::new();
    for number in 0..200 {
        if number == 50 {
            server.kill();
        }
        let new = image("A", &picture(number, 64));
        let stored = images.put(&new).await.unwrap();
        assert_eq!(stored.place, if number < 50 { Place::Redis } else { Place::Files }, "{number}");
        ids.push((new.id, number));
    }
    assert_eq!(images.health(), Health::Away);
    for (id, number) in &ids[50..] {
        let stored = images.get(id).await.unwrap().unwrap();
        assert_eq!(images.bytes(&stored.meta.sha).await.unwrap().unwrap(), picture(*number, 64));
    }
    assert_eq!(images.move_back().await.unwrap(), 0, "Redis is still away");
    server.restart();
    // The breaker lets a probe through every five seconds.
    let moved = std::cell::Cell::new(0);
    windlass_testkit::wait_until(Duration::from_secs(20), "the probe moves the files", async || {
        moved.set(images.move_back().await.unwrap());
        moved.get() > 0
    })
    .await;
    assert_eq!(moved.get(), 150);
    for (id, number) in &ids[50..] {
        let stored = images.get(id).await.unwrap().unwrap();
        assert_eq!(stored.place, Place::Redis);
        assert_eq!(images.bytes(&stored.meta.sha).await.unwrap().unwrap(), picture(*number, 64));
    }
    assert_eq!(images.files().stats().await.unwrap().count, 0);
    let link = link_to(&server);
    check_counts(images.redis().unwrap(), &link, "wl").await;
    assert_eq!(images.redis_stats().await.unwrap().unwrap().count, 150, "the server kept nothing over its end");
}

/// §9.16: a server whose memory is full takes the same way.
#[tokio::test]
async fn a_full_server_is_as_good_as_none() {
    let server = RedisServer::builder().max_memory("3mb", "noeviction").start();
    let dir = tempfile::tempdir().unwrap();
    let images = tiered(link_to(&server), dir.path());
    let mut places = Vec::new();
    for number in 0..40 {
        let new = image("A", &picture(number, 200_000));
        places.push(images.put(&new).await.unwrap().place);
        assert!(images.get(&new.id).await.unwrap().is_some(), "{number}");
    }
    assert!(places.contains(&Place::Redis) && places.last() == Some(&Place::Files), "{places:?}");
    let link = link_to(&server);
    check_counts(images.redis().unwrap(), &link, "wl").await;
}

#[tokio::test]
async fn a_wrong_count_is_found_and_mended() {
    let (link, prefix) = (redis_link(), prefix());
    let redis = RedisImages::new(link.clone(), &prefix, ImageOptions::default());
    redis.put(&image("A", b"bytes")).await.unwrap();
    let mut spoil = cmd("HINCRBY");
    spoil.arg(format!("{prefix}:{{img}}:stat")).arg("bytes").arg(1000);
    link.call(&spoil).await.unwrap();
    let mut spoil = cmd("HSET");
    spoil.arg(format!("{prefix}:{{img}}:refs")).arg("f".repeat(64)).arg(2);
    link.call(&spoil).await.unwrap();
    let found = redis.verify(false).await.unwrap();
    assert!(!found.is_right() && found.counted_bytes == 1005 && found.wrong_refs == 1, "{found:?}");
    assert!(redis.verify(true).await.unwrap().repaired);
    check_counts(&redis, &link, &prefix).await;
}
