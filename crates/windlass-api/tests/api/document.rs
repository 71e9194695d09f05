//! The OpenAPI document, held against every answer that the tests of this crate get.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use serde_json::{Value, json};
use windlass_api::ROUTES;

use crate::support::{Answer, Bench};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime.block_on(async { Bench::new().document().await })).join().unwrap()
});

/// Validators by pointer: each schema is compiled once.
static VALIDATORS: LazyLock<Mutex<HashMap<String, jsonschema::Validator>>> = LazyLock::new(Mutex::default);

impl Bench {
    /// The document, without being held against itself.
    async fn document(&self) -> Value {
        let request = axum::http::Request::get("/api/openapi.json").header("host", "localhost");
        let response = self.raw(request.body(axum::body::Body::empty()).unwrap()).await;
        crate::support::read(response).await.json()
    }
}

/// The path in the table that a request went to; literal ones before those with names.
fn path_of(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap();
    let fits = |wanted: &str| {
        let (wanted, given): (Vec<&str>, Vec<&str>) = (wanted.split('/').collect(), path.split('/').collect());
        wanted.len() == given.len()
            && wanted.iter().zip(&given).all(|(w, g)| w == g || (w.starts_with('{') && !g.is_empty()))
    };
    let names = |path: &str| path.matches('{').count();
    ROUTES.iter().map(|route| route.path).filter(|wanted| fits(wanted)).min_by_key(|path| names(path))
}

/// The answer is one that the document tells of.
#[track_caller]
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    // What HEAD is answered here still has the body that the connection leaves out.
    let Some(path) = path_of(path).filter(|_| method != "HEAD") else { return };
    let Some(operation) = DOCUMENT["paths"][path].get(method.to_ascii_lowercase()) else { return };
    let status = answer.status.as_u16().to_string();
    let about = format!("{method} {path} {status}: {}", String::from_utf8_lossy(&answer.body));
    let told = operation["responses"].get(&status);
    // The words and statuses of replaced systems are told of by `default`.
    let response = told.unwrap_or(&operation["responses"]["default"]);
    assert!(told.is_some() || !answer.status.is_success(), "not in the document: {about}");
    let media_type = answer.header("content-type").split(';').next().unwrap().trim().to_owned();
    let Some(content) = response.get("content") else {
        assert!(answer.body.is_empty(), "no body is told of: {about}");
        return;
    };
    let Some(media) = content.get(&media_type).or_else(|| content.get("*/*")) else {
        let is_problem = media_type == "application/problem+json";
        assert!(is_problem && !answer.status.is_success(), "{media_type:?} is not told of: {about}");
        return;
    };
    let Some(schema) = media.get("schema").filter(|_| media_type.ends_with("json")) else { return };
    let mut all = VALIDATORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let validator = all.entry(schema.to_string()).or_insert_with(|| {
        let mut whole = json!({ "components": DOCUMENT["components"] });
        whole["allOf"] = json!([schema]);
        jsonschema::validator_for(&whole).unwrap()
    });
    let body = answer.json();
    let errors: Vec<String> = validator.iter_errors(&body).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{about}");
}

/// The document is served without a key, names every scope, and is valid OpenAPI in its main parts.
#[tokio::test]
async fn the_document_is_served() {
    let bench = Bench::for_keys(windlass_api::ApiOptions::default());
    let answer = bench.get("/api/openapi.json").await;
    assert_eq!(answer.status.as_u16(), 200);
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.to_lowercase()];
        assert_eq!(operation["security"] == json!([]), route.scope == windlass_api::Scope::Public, "{route:?}");
        let ids = operation["operationId"].as_str().unwrap();
        assert_eq!(answer.body.windows(ids.len() + 2).filter(|w| *w == format!("\"{ids}\"").as_bytes()).count(), 1);
        for name in route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let parameters = operation["parameters"].as_array().unwrap();
            assert!(parameters.iter().any(|p| p["name"] == name && p["in"] == "path"), "{route:?}");
        }
    }
}
