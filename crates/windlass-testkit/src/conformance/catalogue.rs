//! The catalogue of kinds.

use windlass_broker::SharedBroker;
use windlass_jobs::Timestamp;
use windlass_jobs::catalogue::KindInfo;

use super::Bench;

/// What workers publish is listed, with the broker's time; a newer version counts over an older
/// one that is published after it, and the same version replaces itself.
pub async fn kinds_are_published(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let name = format!("k.{}", bench.worker.to_ascii_lowercase());
    let kind = |version: u32, about: &str| KindInfo {
        name: name.clone(),
        version,
        aliases: vec![format!("{name}.old")],
        queue: "q".into(),
        schema: Some(serde_json::json!({ "type": "object", "required": ["größe"] })),
        max_attempts: 3,
        timeout_ms: 60_000,
        isolated: true,
        about: about.into(),
        seen_at: Timestamp(0),
    };
    let mine = || async {
        let kinds = bench.broker.kinds().await.unwrap();
        assert!(kinds.is_sorted_by(|a, b| a.name < b.name));
        kinds.into_iter().find(|kind| kind.name == name)
    };
    assert_eq!(mine().await, None);
    bench.broker.publish(&[]).await.unwrap();
    bench.broker.publish(&[kind(2, "two")]).await.unwrap();
    let first = mine().await.expect("it was published");
    assert!(first.seen_at > Timestamp(1_700_000_000_000), "the time is the broker's");
    assert_eq!(first, KindInfo { seen_at: first.seen_at, ..kind(2, "two") });
    bench.broker.publish(&[kind(1, "one")]).await.unwrap();
    assert_eq!(mine().await.map(|kind| kind.about), Some("two".into()), "a rolling upgrade: the newer counts");
    bench.broker.publish(&[kind(2, "two, again"), kind(2, "two, last")]).await.unwrap();
    assert_eq!(mine().await.map(|kind| kind.about), Some("two, last".into()));
    bench.broker.publish(&[kind(3, "three")]).await.unwrap();
    assert_eq!(mine().await.map(|kind| kind.version), Some(3));
}
