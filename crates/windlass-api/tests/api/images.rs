//! Charts that are kept: our routes, and golden bodies of those of the replaced system.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};
use windlass_api::{ApiOptions, router};
use windlass_redis::{Link, Options};
use windlass_store::images::{Facts, FileImages, ImageId, ImageOptions, Images, NewImage, OldFolder, RedisImages};

use crate::support::Bench;

/// An API over a private prefix of a real Redis, and a folder of a former system.
struct Kept {
    app: axum::Router,
    images: Arc<Images>,
    dir: tempfile::TempDir,
    _bench: Bench,
}

impl Kept {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let old = OldFolder::new(&dir.path().join("old"), Duration::from_secs(24 * 3600));
        std::fs::create_dir(old.dir()).unwrap();
        let mut bench = Bench::with(ApiOptions { old_images: Some(old), ..ApiOptions::default() });
        let url = windlass_testkit::shared_redis().url().replace("redis://", "redis://default:@");
        let link = Link::new(Options::from_url(&url).unwrap()).unwrap();
        let options = ImageOptions::default();
        let redis = RedisImages::new(link, &format!("t{}", windlass_jobs::new_ulid()), options.clone());
        let files = FileImages::new(&dir.path().join("files"), options.clone());
        let images = Arc::new(Images::new(Some(redis), files, options));
        bench.api.services.images = Some(Arc::clone(&images));
        Self { app: router(bench.api.clone()), images, dir, _bench: bench }
    }

    async fn put(&self, symbol: &str, interval: &str, bytes: &'static [u8]) -> ImageId {
        let image = NewImage {
            id: ImageId::new(),
            bytes: Bytes::from_static(bytes),
            thumb: Some(Bytes::from_static(b"small")),
            facts: Facts {
                symbol: symbol.to_owned(),
                interval: interval.to_owned(),
                chart_type: "candle".to_owned(),
                format: "png".to_owned(),
                ..Facts::default()
            },
            created_at: None,
            max_age: None,
        };
        self.images.put(&image).await.unwrap();
        image.id
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        use tower::ServiceExt as _;
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn json(&self, method: &str, path: &str) -> Value {
        let response = self.ask(method, path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{method} {path}");
        serde_json::from_slice(&bytes_of(response).await).unwrap()
    }
}

async fn bytes_of(response: Response) -> Bytes {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// §9.17: the validator, 304, and an age that never goes beyond the image's own end.
#[tokio::test]
async fn an_image_is_served_with_its_validator() {
    let kept = Kept::new();
    let id = kept.put("M&M", "1d", b"\x89PNG picture").await;
    let path = format!("/api/charts/{id}");
    let response = kept.ask("GET", &path, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let etag = header(&response, "etag");
    assert_eq!(header(&response, "content-type"), "image/png");
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert_eq!(header(&response, "content-disposition"), format!("inline; filename=\"{id}.png\""));
    let cache = header(&response, "cache-control");
    let age: u64 = cache
        .strip_prefix("private, max-age=")
        .and_then(|rest| rest.strip_suffix(", immutable"))
        .unwrap()
        .parse()
        .unwrap();
    assert!((86_390..=86_400).contains(&age), "{cache}");
    assert_eq!(bytes_of(response).await, b"\x89PNG picture".as_slice());
    let same = kept.ask("GET", &path, &[("if-none-match", &etag)]).await;
    assert_eq!((same.status(), bytes_of(same).await.len()), (StatusCode::NOT_MODIFIED, 0));
    let other = kept.ask("GET", &path, &[("if-none-match", "\"x\"")]).await;
    assert_eq!(other.status(), StatusCode::OK);
    let head = kept.ask("HEAD", &path, &[]).await;
    assert_eq!((header(&head, "etag"), bytes_of(head).await.len()), (etag, 0));
    let thumb = kept.ask("GET", &format!("{path}/thumb"), &[]).await;
    assert_eq!(bytes_of(thumb).await, b"small".as_slice());
    let latest = kept.ask("GET", "/api/charts/latest?symbol=M%26M", &[]).await;
    assert_eq!(header(&latest, "cache-control"), "no-cache");
    assert_eq!(kept.json("DELETE", &path).await["deleted"], json!(true));
    for gone in [path.as_str(), "/api/charts/..%2f..%2fetc%2fpasswd", "/api/charts/01K9ZQ4T8Z6V0YQ0M5R7T2W3XK"] {
        let response = kept.ask("GET", gone, &[]).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{gone}");
        let problem: Value = serde_json::from_slice(&bytes_of(response).await).unwrap();
        assert_eq!(problem["code"], "image_not_found", "{gone}");
    }
}

#[tokio::test]
async fn lists_go_on_where_they_ended() {
    let kept = Kept::new();
    for (index, symbol) in ["A", "NIFTY 50", "A", "BTC/USD", "A"].into_iter().enumerate() {
        kept.put(symbol, "1d", Box::leak(format!("picture {index}").into_bytes().into_boxed_slice())).await;
    }
    let first = kept.json("GET", "/api/charts?symbol=A&limit=2").await;
    assert_eq!(first["images"].as_array().unwrap().len(), 2);
    let next = first["next"].as_str().unwrap();
    let rest = kept.json("GET", &format!("/api/charts?symbol=A&limit=2&cursor={next}")).await;
    assert_eq!((rest["images"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    assert_eq!(kept.json("GET", "/api/charts").await["images"].as_array().unwrap().len(), 5);
    for bad in ["/api/charts?limit=0", "/api/charts?cursor=x", "/api/charts?page=2"] {
        assert_eq!(kept.ask("GET", bad, &[]).await.status(), StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
    let stats = kept.json("GET", "/api/charts/stats").await;
    assert_eq!((&stats["store"], &stats["redis"]["count"]), (&json!("redis"), &json!(5)));
    // §9.18: the metrics are the same numbers.
    let metrics = String::from_utf8(bytes_of(kept.ask("GET", "/metrics", &[]).await).await.to_vec()).unwrap();
    let bytes = stats["redis"]["bytes"].as_u64().unwrap();
    for line in [
        "windlass_images_count 5".to_owned(),
        format!("windlass_images_bytes {bytes}"),
        "windlass_images_redis_up 1".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

/// The shape of a body: every string, number and null by its kind, lists by their first entry.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::Array(items) => Value::Array(items.first().map(shape).into_iter().collect()),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!(0),
        other => other.clone(),
    }
}

/// Every member of `expected` is in `found`, with its kind; `found` may have more.
#[track_caller]
fn check_shape(found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for (name, expected) in expected {
                let found = found.get(name).unwrap_or_else(|| panic!("{name} is there"));
                check_shape(found, expected);
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            check_shape(&found[0], &expected[0]);
        }
        _ => assert_eq!(shape(found), shape(expected)),
    }
}

fn golden(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("golden/images.json")).unwrap();
    all[name].clone()
}

#[tokio::test]
async fn old_clients_find_their_bodies() {
    let kept = Kept::new();
    let empty = kept.json("GET", "/redis/images/stats").await;
    assert_eq!(empty["stats"]["oldest_image_age_hours"], Value::Null);
    check_shape(&empty, &golden("stats_empty"));
    kept.put("NIFTY 50", "1d", b"\x89PNG one").await;
    kept.put("NIFTY 50", "1h", b"\x89PNG two").await;
    kept.put("BTC/USD", "1d", b"\x89PNG three").await;
    let stats = kept.json("GET", "/redis/images/stats").await;
    check_shape(&stats, &golden("stats"));
    assert_eq!((&stats["stats"]["total_images"], &stats["stats"]["max_size_mb"]), (&json!(3), &json!(1000)));
    let url = stats["stats"]["redis_url"].as_str().unwrap();
    assert!(url.contains(":***@") || !url.contains('@'), "{url}");
    let list = kept.json("GET", "/redis/images/NIFTY%2050").await;
    check_shape(&list, &golden("list"));
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[1]["data"], "data:image/png;base64,iVBORyBvbmU=");
    assert_eq!(kept.json("GET", "/redis/images/BTC%2FUSD").await[0]["metadata"]["symbol"], "BTC/USD");
    check_shape(&kept.json("POST", "/redis/images/cleanup").await, &golden("cleanup"));
    let gone = kept.json("DELETE", "/charts/NIFTY%2050/1h").await;
    assert_eq!((&gone["success"], &gone["message"]), (&json!(true), &json!("Cleaned up charts for NIFTY 50_1h")));
    let none = kept.json("DELETE", "/charts/NIFTY%2050/1h").await;
    assert_eq!((&none["success"], &none["message"]), (&json!(false), &json!("No charts found for NIFTY 50_1h")));
    check_shape(&none, &golden("clear_interval"));
    let cleared = kept.json("DELETE", "/redis/images/BTC%2FUSD").await;
    check_shape(&cleared, &golden("clear"));
    assert_eq!(cleared["count"], json!(1));
    assert_eq!(kept.json("DELETE", "/redis/images").await["count"], json!(1));
    check_shape(&kept.json("GET", "/charts/storage/stats").await, &golden("storage_stats"));
    check_shape(&kept.json("POST", "/charts/cleanup").await, &golden("cleanup_all"));
}

/// Files of the former system are listed, counted, deleted and cleaned with the others.
#[tokio::test]
async fn old_files_are_part_of_the_store() {
    let kept = Kept::new();
    let put = |name: &str, age_h: u64| {
        let path = kept.dir.path().join("old").join(name);
        std::fs::write(&path, b"old picture").unwrap();
        let at = SystemTime::now() - Duration::from_secs(age_h * 3600);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(at).unwrap();
        path
    };
    let (fresh, stale, other) = (put("TCS_1d_a.png", 1), put("TCS_1d_b.png", 30), put("INFY_1h_c.png", 2));
    let list = kept.json("GET", "/redis/images/TCS").await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["key"]), (2, &json!("TCS_1d_a.png")));
    assert_eq!(kept.json("GET", "/charts/storage/stats").await["files"]["total_files"], json!(3));
    let cleaned = kept.json("POST", "/charts/cleanup").await;
    assert_eq!(cleaned["stats"]["files"]["files_removed"], json!(1));
    assert!(fresh.exists() && !stale.exists());
    assert_eq!(kept.json("DELETE", "/charts/TCS/1d").await["success"], json!(true));
    assert!(!fresh.exists() && other.exists());
}
