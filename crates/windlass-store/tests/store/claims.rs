//! Claims: one suite on both stores.

use std::sync::Arc;
use std::time::Duration;

use windlass_jobs::new_ulid;
use windlass_redis::{Link, Options};
use windlass_store::{Claims, Digest, FileClaims, RedisClaims};
use windlass_testkit::shared_redis;

const DAY: Duration = Duration::from_secs(86_400);

async fn a_name_is_taken_once(claims: Arc<dyn Claims>) {
    let name = Digest::of(new_ulid().to_string().as_bytes());
    let tries = (0..50).map(|n| {
        let claims = Arc::clone(&claims);
        async move { claims.claim(&name, &format!("of {n}\nx"), DAY).await.unwrap() }
    });
    let answers = futures_util::future::join_all(tries).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 1);
    let mut others = answers.iter().flatten();
    let holder = others.next().unwrap();
    assert!(others.all(|other| other == holder) && holder.starts_with("of ") && holder.ends_with("\nx"));
    claims.settle(&name, "done").await.unwrap();
    assert_eq!(claims.claim(&name, "late", DAY).await.unwrap().as_deref(), Some("done"));

    let brief = Digest::of(new_ulid().to_string().as_bytes());
    assert_eq!(claims.claim(&brief, "a", Duration::from_millis(50)).await.unwrap(), None);
    claims.settle(&brief, "b").await.unwrap();
    let begun = std::time::Instant::now();
    while claims.claim(&brief, "c", DAY).await.unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(10), "its time is over");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_name_is_taken_once_on_redis() {
    let link = Link::new(Options::from_url(&shared_redis().url()).unwrap()).unwrap();
    a_name_is_taken_once(Arc::new(RedisClaims::new(link, &format!("t{}", new_ulid())))).await;
}

#[tokio::test]
async fn a_name_is_taken_once_on_files() {
    let dir = tempfile::tempdir().unwrap();
    a_name_is_taken_once(Arc::new(FileClaims::new(dir.path()))).await;
    let claims = FileClaims::new(dir.path());
    for n in 0..300_u32 {
        claims.claim(&Digest::of(&n.to_le_bytes()), "x", Duration::from_millis(1)).await.unwrap();
    }
    assert!(std::fs::read_dir(dir.path().join("claims")).unwrap().count() < 100, "swept");
}
