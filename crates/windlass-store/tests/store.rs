//! Both forms of each store keep the same promises.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::sync::Arc;
use std::time::Duration;

use windlass_redis::{Link, Options};
use windlass_store::{Artifacts, Digest, FileArtifacts, FileResults, RedisArtifacts, RedisResults, Results};

fn redis_link() -> Link {
    Link::new(Options::from_url(&windlass_testkit::shared_redis().url()).unwrap()).unwrap()
}

fn prefix() -> String {
    format!("t{}", windlass_jobs::new_ulid())
}

async fn check_artifacts(store: Arc<dyn Artifacts>) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let unknown = Digest::of(b"never stored");
    assert_eq!(store.get(&unknown).await.unwrap(), None);
    assert!(!store.touch(&unknown).await.unwrap());
    let digest = store.put(bytes.clone().into()).await.unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    assert_eq!(store.put(bytes.clone().into()).await.unwrap(), digest, "again");
    assert_eq!(store.get(&digest).await.unwrap().as_deref(), Some(&bytes[..]));
    assert!(store.touch(&digest).await.unwrap());
    let empty = store.put(Vec::new().into()).await.unwrap();
    assert_eq!(store.get(&empty).await.unwrap().as_deref(), Some(&[][..]));
}

async fn check_results(store: Arc<dyn Results>) {
    let long = Duration::from_secs(60);
    assert_eq!(store.get("00ff").await.unwrap(), None);
    store.put("00ff", "{\"a\":1}", long).await.unwrap();
    store.put("00ff", "{\"a\":2}", long).await.unwrap();
    assert_eq!(store.get("00ff").await.unwrap().as_deref(), Some("{\"a\":2}"));
    store.put("../../etc/passwd", "1", long).await.unwrap();
    assert_eq!(store.get("../../etc/passwd").await.unwrap().as_deref(), Some("1"));
    store.put("aa", "1", Duration::from_millis(1)).await.unwrap();
    windlass_testkit::wait_until(Duration::from_secs(5), "the result expires", async || {
        store.get("aa").await.unwrap().is_none()
    })
    .await;
}

#[tokio::test]
async fn artifacts_as_files() {
    let dir = tempfile::tempdir().unwrap();
    check_artifacts(Arc::new(FileArtifacts::new(dir.path()))).await;
}

#[tokio::test]
async fn artifacts_on_redis() {
    check_artifacts(Arc::new(RedisArtifacts::new(redis_link(), &prefix()))).await;
}

#[tokio::test]
async fn results_as_files() {
    let dir = tempfile::tempdir().unwrap();
    check_results(Arc::new(FileResults::new(dir.path()))).await;
    assert!(!dir.path().join("etc").exists());
}

#[tokio::test]
async fn results_on_redis() {
    check_results(Arc::new(RedisResults::new(redis_link(), &prefix()))).await;
}

/// F45: what a crash leaves of a write is swept; what is in use stays.
#[tokio::test]
async fn a_sweep_takes_only_what_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileArtifacts::new(dir.path());
    let old = store.put(b"old".as_slice().into()).await.unwrap();
    let new = store.put(b"new".as_slice().into()).await.unwrap();
    let file = dir.path().join("artifacts").join(&old.hex()[..2]).join(old.hex());
    let long_ago = std::time::SystemTime::now() - windlass_store::ARTIFACT_TTL * 2;
    std::fs::File::open(&file).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(windlass_store::sweep(dir.path()).await.unwrap(), (1, 3));
    assert_eq!(store.get(&old).await.unwrap(), None);
    assert!(store.get(&new).await.unwrap().is_some());
}

/// A file whose content was changed behind our back is not answered.
#[tokio::test]
async fn a_damaged_artifact_is_as_good_as_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileArtifacts::new(dir.path());
    let digest = store.put(b"right".as_slice().into()).await.unwrap();
    std::fs::write(dir.path().join("artifacts").join(&digest.hex()[..2]).join(digest.hex()), b"wrong").unwrap();
    assert_eq!(store.get(&digest).await.unwrap(), None);
}
