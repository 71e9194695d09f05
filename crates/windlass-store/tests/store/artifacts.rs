//! Artifacts, uploads, pins, results and leads, on Redis and as files.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use windlass_store::{
    Artifacts, Digest, Error, FileArtifacts, Lead, Limits, PIN_CHECK, Services, file_services, redis_services,
};
use windlass_testkit::wait_until;

use crate::{prefix, redis_link};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);
const KIB: u64 = 1024;

/// Runs a check on both forms, each fresh.
macro_rules! on_both {
    ($($(#[$about:meta])* $name:ident($limits:expr);)*) => {
        mod files {
            $($(#[$about])* #[tokio::test] async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(super::file_services(dir.path(), $limits)).await;
            })*
        }
        mod redis {
            $($(#[$about])* #[tokio::test] async fn $name() {
                super::$name(super::redis_services(&super::redis_link(), &super::prefix(), $limits)).await;
            })*
        }
    };
}

on_both! {
    artifacts_are_kept_under_their_digest(super::Limits::default());
    results_are_kept_for_their_time(super::Limits::default());
    /// B28
    a_result_under_a_strange_key_stays_inside(super::Limits::default());
    /// F46: 1 byte … limit … limit + 1.
    what_is_used_longest_ago_makes_room(super::small());
    a_hit_keeps_a_result_from_going_first(super::small());
    uploads_are_checked_and_kept_whole_or_not_at_all(super::Limits::default());
    uploads_over_the_quota_are_refused(super::small());
    what_is_uploaded_never_makes_room_for_artifacts(super::small());
    what_a_job_holds_outlives_its_time(super::fleeting());
    a_blob_goes_when_the_last_holder_let_go(super::fleeting());
    pins_name_what_is_missing_and_can_be_repeated(super::Limits::default());
    a_lead_is_one_callers_until_it_ends(super::Limits::default());
    hits_and_misses_are_counted(super::Limits::default());
    clearing_forgets_results_and_nothing_else(super::Limits::default());
}

fn small() -> Limits {
    Limits { cache_bytes: 100 * KIB, upload_bytes: 100 * KIB, ..Limits::default() }
}

fn fleeting() -> Limits {
    Limits { upload_ttl: Duration::from_millis(300), ..Limits::default() }
}

/// Bytes that differ by `n`.
fn bytes(n: u8, len: u64) -> Vec<u8> {
    vec![n; usize::try_from(len).unwrap()]
}

async fn upload(store: &dyn Artifacts, bytes: &[u8]) -> Digest {
    let mut upload = store.upload().await.unwrap();
    for part in bytes.chunks(1000) {
        upload.write(part.to_vec().into()).await.unwrap();
    }
    upload.finish(Some(Digest::of(bytes))).await.unwrap()
}

async fn artifacts_are_kept_under_their_digest(Services { artifacts: store, .. }: Services) {
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let unknown = Digest::of(b"never stored");
    assert_eq!(store.get(&unknown).await.unwrap(), None);
    assert!(!store.touch(&unknown).await.unwrap());
    for bytes in [large, b"x".to_vec(), Vec::new()] {
        let digest = store.put(bytes.clone().into()).await.unwrap();
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(store.put(bytes.clone().into()).await.unwrap(), digest, "again");
        assert_eq!(store.get(&digest).await.unwrap().as_deref(), Some(&bytes[..]));
        assert!(store.touch(&digest).await.unwrap());
    }
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.artifacts.entries, stats.artifacts.bytes), (3, 3_000_001));
}

async fn results_are_kept_for_their_time(Services { results: store, .. }: Services) {
    assert_eq!(store.get("00ff").await.unwrap(), None);
    store.put("00ff", "{\"a\":1}", LONG).await.unwrap();
    store.put("00ff", "{\"a\":2}", LONG).await.unwrap();
    assert_eq!(store.get("00ff").await.unwrap().as_deref(), Some("{\"a\":2}"));
    store.put("aa", "1", Duration::from_millis(1)).await.unwrap();
    wait_until(SOON, "the result expires", async || store.get("aa").await.unwrap().is_none()).await;
    store.forget("00ff").await.unwrap();
    assert_eq!(store.get("00ff").await.unwrap(), None);
}

async fn a_result_under_a_strange_key_stays_inside(Services { results: store, .. }: Services) {
    for key in ["../../etc/passwd", "", "a:b*", "\0"] {
        store.put(key, "1", LONG).await.unwrap();
        assert_eq!(store.get(key).await.unwrap().as_deref(), Some("1"), "{key:?}");
    }
}

async fn what_is_used_longest_ago_makes_room(Services { artifacts: store, .. }: Services) {
    let mut all = Vec::new();
    for n in 0..10 {
        all.push(store.put(bytes(n, 10 * KIB).into()).await.unwrap());
    }
    assert_eq!(store.stats().await.unwrap().evictions, 0, "exactly full");
    assert!(store.touch(&all[0]).await.unwrap(), "the oldest is used again");
    let newest = store.put(bytes(99, 1).into()).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert!(stats.evictions >= 1 && stats.artifacts.bytes <= 100 * KIB, "{stats:?}");
    assert!(!store.touch(&all[1]).await.unwrap(), "this one was used longest ago");
    assert!(store.touch(&all[0]).await.unwrap() && store.touch(&newest).await.unwrap());
    let whole = store.put(bytes(100, 100 * KIB).into()).await.unwrap();
    assert!(store.touch(&whole).await.unwrap(), "as large as the cache");
    let over = store.put(bytes(101, 100 * KIB + 1).into()).await;
    assert!(matches!(over, Err(Error::TooLarge { max, .. }) if max == 100 * KIB), "{over:?}");
}

async fn a_hit_keeps_a_result_from_going_first(services: Services) {
    let store = services.results;
    // As JSON text, each takes more than a tenth of the cache and less than a ninth.
    let json = format!("\"{}\"", "x".repeat(10 * 1024 + 500));
    for n in 0..9 {
        store.put(&format!("{n:02}"), &json, LONG).await.unwrap();
    }
    assert!(store.get("00").await.unwrap().is_some());
    store.put("99", &json, LONG).await.unwrap();
    assert!(store.get("01").await.unwrap().is_none(), "used longest ago");
    assert!(store.get("00").await.unwrap().is_some());
    let stats = services.artifacts.stats().await.unwrap();
    assert!(stats.results.bytes <= 100 * KIB && stats.evictions >= 1, "{stats:?}");
    assert!(stats.oldest.is_some());
}

async fn uploads_are_checked_and_kept_whole_or_not_at_all(Services { artifacts: store, .. }: Services) {
    let large: Vec<u8> = (0..2_500_000_u32).map(|i| u8::try_from(i % 253).unwrap()).collect();
    for bytes in [large, Vec::new()] {
        let digest = upload(store.as_ref(), &bytes).await;
        assert_eq!(store.get(&digest).await.unwrap().as_deref(), Some(&bytes[..]));
        assert_eq!(upload(store.as_ref(), &bytes).await, digest, "again");
    }
    let wrong = Digest::of(b"cards");
    let mut other = store.upload().await.unwrap();
    other.write(b"cardz".as_slice().into()).await.unwrap();
    assert!(matches!(other.finish(Some(wrong)).await, Err(Error::OtherBytes { .. })));
    let mut unfinished = store.upload().await.unwrap();
    unfinished.write(b"cards".as_slice().into()).await.unwrap();
    drop(unfinished);
    for digest in [wrong, Digest::of(b"cardz")] {
        assert_eq!(store.get(&digest).await.unwrap(), None);
    }
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.uploads.entries, stats.uploads.bytes), (2, 2_500_000));
}

async fn uploads_over_the_quota_are_refused(Services { artifacts: store, .. }: Services) {
    let first = upload(store.as_ref(), &bytes(1, 60 * KIB)).await;
    let refused = |bytes: Vec<u8>| {
        let store = &store;
        async move {
            let mut upload = store.upload().await.unwrap();
            upload.write(bytes.into()).await.unwrap();
            upload.finish(None).await
        }
    };
    let over = refused(bytes(2, 40 * KIB + 1)).await;
    assert!(matches!(over, Err(Error::QuotaFull { used, max }) if (used, max) == (60 * KIB, 100 * KIB)), "{over:?}");
    assert!(!store.touch(&Digest::of(&bytes(2, 40 * KIB + 1))).await.unwrap());
    assert_eq!(upload(store.as_ref(), &bytes(1, 60 * KIB)).await, first, "what is there takes no more room");
    upload(store.as_ref(), &bytes(3, 40 * KIB)).await;
    assert_eq!(store.stats().await.unwrap().uploads.bytes, 100 * KIB);
}

async fn what_is_uploaded_never_makes_room_for_artifacts(Services { artifacts: store, .. }: Services) {
    let made = store.put(bytes(0, 10 * KIB).into()).await.unwrap();
    assert_eq!(upload(store.as_ref(), &bytes(0, 10 * KIB)).await, made, "an artifact that is uploaded as well");
    let uploaded = upload(store.as_ref(), &bytes(1, 10 * KIB)).await;
    assert_eq!(store.put(bytes(1, 10 * KIB).into()).await.unwrap(), uploaded, "an upload that a job makes as well");
    for n in 2..14 {
        store.put(bytes(n, 10 * KIB).into()).await.unwrap();
    }
    assert!(store.touch(&made).await.unwrap() && store.touch(&uploaded).await.unwrap());
    let stats = store.stats().await.unwrap();
    assert!(stats.uploads.entries == 2 && stats.evictions >= 2, "{stats:?}");
}

async fn what_a_job_holds_outlives_its_time(Services { artifacts: store, .. }: Services) {
    let (held, free) = (upload(store.as_ref(), b"held").await, upload(store.as_ref(), b"free").await);
    assert_eq!(store.pin("job1", &[held]).await.unwrap(), []);
    // Asking whether it is there would keep it.
    wait_until(SOON, "what nobody holds goes", async || {
        store.tidy().await.unwrap();
        store.stats().await.unwrap().uploads.entries == 1
    })
    .await;
    assert_eq!(store.get(&free).await.unwrap(), None);
    assert_eq!(store.get(&held).await.unwrap().as_deref(), Some(&b"held"[..]));
    assert_eq!(store.stats().await.unwrap().pinned_jobs, 1);
}

async fn a_blob_goes_when_the_last_holder_let_go(Services { artifacts: store, .. }: Services) {
    let blob = upload(store.as_ref(), b"shared").await;
    for job in ["job1", "job2", "job2"] {
        assert_eq!(store.pin(job, &[blob]).await.unwrap(), []);
    }
    store.release("job1").await.unwrap();
    store.release("job1").await.unwrap();
    // One of the same age that nobody holds says when its time is over.
    let free = upload(store.as_ref(), b"nobody's").await;
    wait_until(SOON, "what nobody holds goes", async || {
        store.tidy().await.unwrap();
        store.stats().await.unwrap().uploads.entries == 1
    })
    .await;
    assert_eq!(store.get(&free).await.unwrap(), None);
    assert!(store.get(&blob).await.unwrap().is_some(), "job2 holds it");
    store.release("job2").await.unwrap();
    assert_eq!(store.stats().await.unwrap().pinned_jobs, 0);
    wait_until(SOON, "it goes", async || {
        store.tidy().await.unwrap();
        store.stats().await.unwrap().uploads.entries == 0
    })
    .await;
}

async fn pins_name_what_is_missing_and_can_be_repeated(Services { artifacts: store, .. }: Services) {
    let there = upload(store.as_ref(), b"there").await;
    let absent = Digest::of(b"absent");
    for _ in 0..2 {
        assert_eq!(store.pin("01ABC.pdf", &[there, absent]).await.unwrap(), [absent]);
    }
    assert_eq!(store.pin("../x", &[there]).await.unwrap(), [], "no path");
    let many: Vec<Digest> = (0..600_u32).map(|n| Digest::of(&n.to_be_bytes())).collect();
    assert_eq!(store.pin("many", &many).await.unwrap(), many);
    assert_eq!(store.due_pins(10).await.unwrap(), Vec::<String>::new(), "not before {PIN_CHECK:?}");
    for job in ["01ABC.pdf", "../x", "many", "never heard of"] {
        store.release(job).await.unwrap();
    }
    assert_eq!(store.stats().await.unwrap().pinned_jobs, 0);
}

async fn a_lead_is_one_callers_until_it_ends(Services { results: store, .. }: Services) {
    assert_eq!(store.lead("00ff", "a", LONG).await.unwrap(), Lead::Mine);
    assert_eq!(store.lead("00ff", "a", LONG).await.unwrap(), Lead::Mine, "renewed");
    assert!(matches!(store.lead("00ff", "b", LONG).await.unwrap(), Lead::Other { age } if age < SOON));
    assert_eq!(store.lead("00aa", "b", LONG).await.unwrap(), Lead::Mine, "another key");
    store.let_go("00ff", "b").await.unwrap();
    assert!(matches!(store.lead("00ff", "b", LONG).await.unwrap(), Lead::Other { .. }), "not b's to end");
    store.let_go("00ff", "a").await.unwrap();
    assert_eq!(store.lead("00ff", "b", Duration::from_millis(50)).await.unwrap(), Lead::Mine);
    wait_until(SOON, "a lead nobody renews ends", async || store.lead("00ff", "c", LONG).await.unwrap() == Lead::Mine)
        .await;
}

async fn hits_and_misses_are_counted(Services { artifacts, results, .. }: Services) {
    assert_eq!(artifacts.stats().await.unwrap().hit_rate().to_bits(), 0.0_f64.to_bits());
    assert_eq!(artifacts.stats().await.unwrap().oldest, None);
    results.lead("00", "a", LONG).await.unwrap();
    results.lead("00", "a", LONG).await.unwrap();
    results.lead("00", "b", LONG).await.unwrap();
    results.put("00", "1", LONG).await.unwrap();
    for _ in 0..4 {
        results.get("00").await.unwrap();
    }
    results.forget("00").await.unwrap();
    let stats = artifacts.stats().await.unwrap();
    assert_eq!((stats.hits, stats.misses), (3, 1), "a renewal and another's lead are no misses");
    assert_eq!(stats.hit_rate().to_bits(), 0.75_f64.to_bits());
}

async fn clearing_forgets_results_and_nothing_else(Services { artifacts, results, .. }: Services) {
    let kept = artifacts.put(b"artifact".as_slice().into()).await.unwrap();
    for n in 0..600 {
        results.put(&format!("{n:04}"), "1", LONG).await.unwrap();
    }
    assert_eq!(results.clear().await.unwrap(), 600);
    assert_eq!(results.clear().await.unwrap(), 0);
    assert_eq!(results.get("0000").await.unwrap(), None);
    assert!(artifacts.touch(&kept).await.unwrap());
    let stats = artifacts.stats().await.unwrap();
    assert_eq!((stats.results.entries, stats.results.bytes, stats.artifacts.entries), (0, 0, 1));
}

fn age(path: &Path, by: Duration) {
    let then = std::time::SystemTime::now() - by;
    std::fs::File::options().append(true).open(path).unwrap().set_modified(then).unwrap();
}

fn artifact(dir: &Path, digest: &Digest) -> std::path::PathBuf {
    dir.join("artifacts").join(&digest.hex()[..2]).join(digest.hex())
}

/// F45: what a crash leaves of a write is swept; what is in use stays.
#[tokio::test]
async fn a_sweep_takes_only_what_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileArtifacts::new(dir.path());
    let old = store.put(b"old".as_slice().into()).await.unwrap();
    let new = store.put(b"new".as_slice().into()).await.unwrap();
    age(&artifact(dir.path(), &old), Limits::TTL * 2);
    let leftover = artifact(dir.path(), &new).with_extension("tmp");
    std::fs::write(&leftover, "half a wri").unwrap();
    age(&leftover, Duration::from_secs(7200));
    let broken_off = dir.path().join("incoming/x.tmp");
    std::fs::create_dir_all(broken_off.parent().unwrap()).unwrap();
    std::fs::write(&broken_off, "half an upl").unwrap();
    age(&broken_off, Duration::from_secs(7200));
    assert_eq!(store.tidy().await.unwrap(), 3);
    assert!(!leftover.exists() && !broken_off.exists());
    assert_eq!(store.get(&old).await.unwrap(), None);
    assert!(store.get(&new).await.unwrap().is_some());
}

/// A file whose content was changed behind our back is not answered.
#[tokio::test]
async fn a_damaged_artifact_is_as_good_as_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileArtifacts::new(dir.path());
    let digest = store.put(b"right".as_slice().into()).await.unwrap();
    std::fs::write(artifact(dir.path(), &digest), b"wrong").unwrap();
    assert_eq!(store.get(&digest).await.unwrap(), None);
}

/// A cached result is answered when its files are whole; what is not goes, so that it can be put again.
#[tokio::test]
async fn damaged_bytes_are_taken_away_and_can_be_put_again() {
    let (dir, prefix, link) = (tempfile::tempdir().unwrap(), prefix(), redis_link());
    let on_files = file_services(dir.path(), Limits::default()).artifacts;
    let on_redis = redis_services(&link, &prefix, Limits::default()).artifacts;
    for (store, is_file) in [(on_files, true), (on_redis, false)] {
        let right = Bytes::from_static(b"right");
        let digest = store.put(right.clone()).await.unwrap();
        assert!(store.verify(&digest).await.unwrap());
        if is_file {
            std::fs::write(artifact(dir.path(), &digest), b"wr").unwrap();
        } else {
            let mut call = windlass_redis::cmd("SETRANGE");
            call.arg(format!("{prefix}:{{art}}:d:{}", digest.hex())).arg(0).arg("w");
            link.call(&call).await.unwrap();
        }
        assert!(!store.verify(&digest).await.unwrap());
        assert!(!store.verify(&digest).await.unwrap(), "and not by asking again");
        store.put(right.clone()).await.unwrap();
        assert!(store.verify(&digest).await.unwrap());
        assert_eq!(store.get(&digest).await.unwrap().as_deref(), Some(b"right".as_slice()));
        assert_eq!(store.stats().await.unwrap().artifacts.bytes, 5);
    }
}

/// A job's pins are answered once per five minutes, to one process.
#[tokio::test]
async fn due_pins_are_given_to_one_caller() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (FileArtifacts::new(dir.path()), FileArtifacts::new(dir.path()));
    let blob = upload(&one, b"x").await;
    one.pin("01ABC.pdf", &[blob]).await.unwrap();
    age(&dir.path().join("pins/01ABC.pdf"), PIN_CHECK * 2);
    assert_eq!(two.due_pins(10).await.unwrap(), ["01ABC.pdf"]);
    assert_eq!(one.due_pins(10).await.unwrap(), Vec::<String>::new());
}

/// F20: without memory Redis refuses what is new, and answers what is there; nothing is half kept.
#[tokio::test]
async fn a_full_redis_keeps_what_it_has() {
    let redis = windlass_testkit::RedisServer::builder().max_memory("4mb", "noeviction").start();
    let link = windlass_redis::Link::new(windlass_redis::Options::from_url(&redis.url()).unwrap()).unwrap();
    let Services { artifacts, results, .. } = redis_services(&link, "t", Limits::default());
    let kept = upload(artifacts.as_ref(), b"kept").await;
    results.put("00", "1", LONG).await.unwrap();
    let mut full = None;
    for n in 0..200_u8 {
        if let Err(error) = artifacts.put(bytes(n, 64 * KIB).into()).await {
            full = Some((n, error));
            break;
        }
    }
    let (n, error) = full.expect("4 MiB are full some time");
    assert!(error.is_full(), "{error:?}");
    assert_eq!(artifacts.get(&Digest::of(&bytes(n, 64 * KIB))).await.unwrap(), None);
    assert_eq!(artifacts.get(&kept).await.unwrap().as_deref(), Some(&b"kept"[..]));
    assert_eq!(artifacts.pin("job", &[kept]).await.unwrap(), []);
    artifacts.release("job").await.unwrap();
    assert_eq!(results.get("00").await.unwrap().as_deref(), Some("1"));
    assert_eq!(results.lead("00", "a", LONG).await.unwrap(), Lead::Mine);
    assert_eq!(artifacts.stats().await.unwrap().artifacts.entries, u64::from(n));
}
