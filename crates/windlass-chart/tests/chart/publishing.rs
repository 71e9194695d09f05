//! From a run to the image store: what the worker does with a drawn chart.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};
use windlass_chart::args::{Return, Store};
use windlass_chart::{ChartArgs, ChartRender, Defaults, Format};
use windlass_jobs::Outcome;
use windlass_redis::{Link, Options};
use windlass_store::images::{FileImages, ImageId, ImageOptions, Images, RedisImages};
use windlass_store::{Limits, Services, file_services};
use windlass_worker::{IsolatedKind, StoredArtifact, StoredResult};

use crate::goog;
use crate::runs::Watcher;

fn services(dir: &Path) -> Services {
    services_with(None, dir)
}

fn services_with(redis: Option<RedisImages>, dir: &Path) -> Services {
    let options = ImageOptions::default();
    let images = Images::new(redis, FileImages::new(&dir.join("images"), options.clone()), options);
    Services { images: Some(Arc::new(images)), ..file_services(dir, Limits::default()) }
}

/// What the worker does: run, keep the artifacts, publish.
async fn result(args: ChartArgs, services: &Services) -> StoredResult {
    let dir = tempfile::tempdir().expect("a directory");
    let Outcome::Done(done) = ChartRender::default().run(args, dir.path(), &Watcher::default()) else {
        panic!("good args are drawn");
    };
    let mut result = StoredResult { value: done.value, ..StoredResult::default() };
    for artifact in done.artifacts {
        let (digest, bytes) = services.artifacts.put_file(&dir.path().join(&artifact.path)).await.expect("kept");
        let (name, media_type) = (artifact.name, artifact.media_type);
        result.artifacts.push(StoredArtifact { name, media_type, blob: digest.to_string(), bytes });
    }
    ChartRender::default().publish(&mut result, services).await.expect("published");
    result
}

fn id_of(result: &StoredResult) -> ImageId {
    result.value["image_id"].as_str().and_then(|id| id.parse().ok()).expect("an image's id")
}

#[tokio::test]
async fn an_image_is_kept_and_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let services = services(dir.path());
    let result = result(goog(60), &services).await;
    let stored = services.images.as_ref().expect("there").get(&id_of(&result)).await.expect("asked").expect("kept");
    assert_eq!(result.value["etag"], json!(stored.meta.sha.hex()));
    assert_eq!(result.value["expires_at"], json!(stored.meta.expires_at));
    assert_eq!((&result.value["stored_in"], &result.value["reused"]), (&json!("files"), &json!(false)));
    assert_eq!(stored.meta.facts.symbol, "GOOG");
    assert_eq!((stored.meta.facts.width_px, stored.meta.thumb.is_some()), (1200, true));
}

/// Files are told as a makeshift only where there is a Redis that ought to have the image.
#[tokio::test]
async fn an_image_on_files_is_noted_where_redis_is_away_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let embedded = result(goog(60), &services(dir.path())).await;
    assert_eq!((&embedded.value["stored_in"], &embedded.value["notes"]), (&json!("files"), &json!([])));
    // Port 1 of this machine: nobody listens.
    let link = Link::new(Options::from_url("redis://127.0.0.1:1").expect("an address")).expect("a link");
    let away = RedisImages::new(link, "wl", ImageOptions::default());
    let makeshift = result(goog(61), &services_with(Some(away), dir.path())).await;
    assert_eq!(makeshift.value["stored_in"], "files");
    assert!(makeshift.value["notes"].to_string().contains("Redis is away"), "{}", makeshift.value["notes"]);
}

/// §9.17: an equal job answers the kept image; when that is gone, its bytes are kept again.
#[tokio::test]
async fn an_equal_job_is_answered_without_drawing() {
    let dir = tempfile::tempdir().expect("a directory");
    let services = services(dir.path());
    let images = services.images.clone().expect("there");
    let mut cached = result(goog(60), &services).await;
    let first = id_of(&cached);
    assert!(ChartRender::default().revive(&mut cached, &services).await);
    assert_eq!((id_of(&cached), &cached.value["reused"]), (first.clone(), &json!(true)));
    assert!(images.delete(&first).await.expect("asked"));
    assert!(ChartRender::default().revive(&mut cached, &services).await);
    assert!(images.get(&id_of(&cached)).await.expect("asked").is_some() && id_of(&cached) != first);
    // Drawn again from args that say the same in other words: the image is there already.
    let again = result(ChartArgs { time_zone: "UTC".to_owned(), ..goog(60) }, &services).await;
    assert_eq!((id_of(&again), &again.value["reused"]), (id_of(&cached), &json!(true)));
    let own = Store { dedupe: false, ..Store::default() };
    let mut apart = result(ChartArgs { store: own, ..goog(60) }, &services).await;
    assert_ne!(id_of(&apart), id_of(&cached));
    assert!(!ChartRender::default().revive(&mut apart, &services).await, "without dedupe it is drawn anew");
}

#[tokio::test]
async fn a_file_or_numbers_travel_when_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let services = services(dir.path());
    let inline = result(ChartArgs { returns: Return::Inline, ..goog(60) }, &services).await;
    let data = inline.value["data"].as_str().expect("base64");
    let file = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
    assert!(file.starts_with(b"\x89PNG"));
    let values = result(ChartArgs { returns: Return::Values, ..goog(60) }, &services).await;
    assert_eq!(values.value["values"]["series"][0]["name"], json!("sma_20"));
    assert_eq!(values.artifacts.last().map(|artifact| artifact.name.as_str()), Some("values.json"));
    assert!(result(goog(60), &services).await.value.get("values").is_none());
}

#[test]
fn settings_fill_what_a_job_leaves_open() {
    let defaults = Defaults { format: Format::Jpeg, quality: Some(80) };
    let render = ChartRender { defaults, ..ChartRender::default() };
    let check = |args: Value, expected: Value| {
        let mut filled = args;
        render.fill(&mut filled);
        assert_eq!(filled, expected);
    };
    check(json!({}), json!({"format": "jpeg", "quality": 80}));
    check(json!({"quality": 60}), json!({"format": "jpeg", "quality": 60}));
    check(json!({"format": "png"}), json!({"format": "png"}));
    check(json!({"effort": "fast"}), json!({"effort": "fast"}));
    check(json!({"format": "webp", "lossy": true}), json!({"format": "webp", "lossy": true, "quality": 80}));
}

/// Bars may come as a blob, of JSON or CSV.
#[test]
fn bars_are_read_from_a_blob() {
    let whole = goog(60);
    let csv = windlass_chart::GOOG_DAILY_CSV.as_bytes().to_vec();
    let json = serde_json::to_vec(&whole.candles).expect("JSON");
    for (bytes, good) in [(csv, true), (json, true), (b"nonsense".to_vec(), false)] {
        let dir = tempfile::tempdir().expect("a directory");
        let digest = windlass_store::Digest::of(&bytes);
        std::fs::create_dir(dir.path().join("in")).expect("a folder");
        std::fs::write(dir.path().join("in").join(digest.hex()), bytes).expect("written");
        let mut args = goog(60);
        args.candles = windlass_chart::args::Candles::default();
        args.source = Some(windlass_chart::args::Source::CandlesBlob(digest.to_string()));
        assert_eq!(args.check(), []);
        assert_eq!(ChartRender::default().inputs(&args).blobs, [digest.hex()]);
        match ChartRender::default().run(args, dir.path(), &Watcher::default()) {
            Outcome::Done(done) => assert!(good && done.value["bars"] == json!(2148)),
            Outcome::Fatal(error) => assert!(!good && error.code == "candles_unreadable", "{error}"),
            other => panic!("{other:?}"),
        }
    }
}
