//! `/api/cache/{namespace}/{key}`: values by namespace, and by user with `?user=`.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_store::{Answer, Cache, Found, Key, Namespace};
use windlass_worker::schemars::JsonSchema;

use super::{Seconds, millis, of_json, path, query, read};
use crate::Shared;
use crate::auth::Caller;
use crate::problem::{Code, Problem};

/// Most operations in one batch.
const BATCH: usize = 1_000;
/// How many of them are under way at once.
const AT_ONCE: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfUser {
    /// Whose value it is; absent: nobody's in particular.
    user: Option<String>,
}

type Names = Result<Path<(String, String)>, PathRejection>;
type User = Result<Query<OfUser>, QueryRejection>;

/// Whose values a caller means. A tenant's that are nobody's in particular are those of a user
/// without a name, so that they too are cleared by index.
fn user_of(caller: &Caller, user: Option<String>) -> Option<String> {
    match caller.tenant() {
        Some(_) => Some(caller.own(user.unwrap_or_default())),
        None => user,
    }
}

fn key_of(caller: &Caller, namespace: &str, key: &str, user: Option<String>) -> Result<Key, Problem> {
    let namespace = Namespace::new(namespace)?;
    Ok(match user_of(caller, user) {
        Some(user) => Key::of_user(namespace, &user, key)?,
        None => Key::new(namespace, key)?,
    })
}

fn key(caller: &Caller, names: Names, user: User) -> Result<Key, Problem> {
    let (namespace, key) = path(names)?;
    key_of(caller, &namespace, &key, query(user, "?user=")?.user)
}

fn not_there() -> Problem {
    Problem::new(Code::KeyNotFound, "there is no value under this key, or its time is over")
}

/// `{"value", "ttl_ms", "degraded"}`; another application's value that is no JSON is answered as text.
fn view(Answer { value: found, degraded }: Answer<Found>) -> Value {
    let value = serde_json::from_str(&found.json).unwrap_or(Value::String(found.json));
    json!({ "value": value, "ttl_ms": millis(found.ttl), "degraded": degraded })
}

pub(crate) async fn get(
    State(shared): State<Shared>,
    caller: Caller,
    names: Names,
    user: User,
) -> Result<Response, Problem> {
    let found = shared.caching.cache.find(&key(&caller, names, user)?).await;
    let Answer { value: Some(value), degraded } = found else { return Err(not_there()) };
    Ok(axum::Json(view(Answer { value, degraded })).into_response())
}

pub(crate) async fn head(
    State(shared): State<Shared>,
    caller: Caller,
    names: Names,
    user: User,
) -> Result<Response, Problem> {
    if shared.caching.cache.exists(&key(&caller, names, user)?).await.value {
        return Ok(StatusCode::OK.into_response());
    }
    Err(not_there())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Put {
    value: Value,
    #[schemars(with = "Option<f64>", range(min = 0.001, max = 2_592_000))]
    ttl_seconds: Option<Seconds>,
}

/// `PUT` with `{"value": …, "ttl_seconds": n}`; the time may be absent or null.
pub(crate) async fn put(
    State(shared): State<Shared>,
    caller: Caller,
    names: Names,
    user: User,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = key(&caller, names, user)?;
    let Put { value, ttl_seconds } = read(&shared, &headers, body).await?;
    let kept = shared.caching.cache.set(&key, &value, ttl_seconds.map(|ttl| ttl.0)).await?;
    Ok(axum::Json(json!({ "success": true, "degraded": kept.degraded })).into_response())
}

pub(crate) async fn delete(
    State(shared): State<Shared>,
    caller: Caller,
    names: Names,
    user: User,
) -> Result<Response, Problem> {
    let gone = shared.caching.cache.delete(&key(&caller, names, user)?).await;
    Ok(axum::Json(json!({ "deleted": gone.value, "degraded": gone.degraded })).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Increment {
    #[serde(default = "one")]
    amount: i64,
    #[schemars(with = "Option<f64>", range(min = 0.001, max = 2_592_000))]
    ttl_seconds: Option<Seconds>,
}

const fn one() -> i64 {
    1
}

/// `POST …/increment` with `{"amount": n}`; may be negative, default 1.
pub(crate) async fn increment(
    State(shared): State<Shared>,
    caller: Caller,
    names: Names,
    user: User,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = key(&caller, names, user)?;
    let Increment { amount, ttl_seconds } = read(&shared, &headers, body).await?;
    let sum = shared.caching.cache.increment(&key, amount, ttl_seconds.map(|ttl| ttl.0)).await?;
    Ok(axum::Json(json!({ "value": sum.value, "degraded": sum.degraded })).into_response())
}

/// `DELETE /api/cache/{namespace}`: everything of it, or with `?user=` of that user in it. For a key of
/// a tenant and without a user: its values that are no user's.
pub(crate) async fn clear(
    State(shared): State<Shared>,
    caller: Caller,
    name: Result<Path<String>, PathRejection>,
    user: User,
) -> Result<Response, Problem> {
    let namespace = Namespace::new(&path(name)?)?;
    let cache = &shared.caching.cache;
    let cleared = match user_of(&caller, query(user, "?user=")?.user) {
        Some(user) => cache.clear_user(&user, Some(&namespace)).await?,
        None => cache.clear(&namespace).await,
    };
    Ok(removed(cleared))
}

/// `DELETE /api/cache?user=…`: everything of a user, in all namespaces.
pub(crate) async fn clear_user(State(shared): State<Shared>, caller: Caller, user: User) -> Result<Response, Problem> {
    let Some(user) = query(user, "?user=")?.user else {
        return Err(Problem::new(
            Code::QueryInvalid,
            "say whose values: ?user=; a namespace is cleared by its own path",
        ));
    };
    Ok(removed(shared.caching.cache.clear_user(&caller.own(user), None).await?))
}

fn removed(cleared: Answer<u64>) -> Response {
    axum::Json(json!({ "removed": cleared.value, "degraded": cleared.degraded })).into_response()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Batch {
    #[schemars(with = "Vec<Operation>", length(max = 1_000))]
    operations: Vec<Value>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
struct Operation {
    op: Verb,
    namespace: String,
    key: String,
    user: Option<String>,
    value: Option<Value>,
    #[schemars(with = "Option<f64>", range(min = 0.001, max = 2_592_000))]
    ttl_seconds: Option<Seconds>,
    amount: Option<i64>,
}

#[derive(Deserialize, Clone, Copy, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "windlass_worker::schemars")]
enum Verb {
    Get,
    Set,
    Delete,
    Exists,
    Ttl,
    Increment,
}

/// `POST /api/cache` with `{"operations": [{"op", "namespace", "key", "user", "value",
/// "ttl_seconds", "amount"}]}`: at most 1,000, done at once, answered in order in `{"results"}`.
/// They are checked before the first is done. One that cannot be done answers `{"error", "code"}`.
pub(crate) async fn batch(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Batch { operations } = read(&shared, &headers, body).await?;
    if operations.len() > BATCH {
        let detail = format!("{} operations; at most {BATCH} are taken at once", operations.len());
        return Err(Problem::new(Code::BatchTooLarge, detail));
    }
    let mut ready = Vec::with_capacity(operations.len());
    for (index, operation) in operations.into_iter().enumerate() {
        let at = |problem: Problem| problem.with("index", index);
        let mut operation: Operation = of_json(operation).map_err(at)?;
        let user = operation.user.take();
        let key = key_of(&caller, &operation.namespace, &operation.key, user).map_err(at)?;
        ready.push((key, operation));
    }
    let cache = shared.caching.cache.clone();
    let work = ready.into_iter().map(|(key, operation)| {
        let cache = cache.clone();
        async move { one_of_many(&cache, &key, operation).await }
    });
    let results: Vec<Value> = stream::iter(work).buffered(AT_ONCE).collect().await;
    Ok(axum::Json(json!({ "results": results })).into_response())
}

async fn one_of_many(cache: &Cache, key: &Key, operation: Operation) -> Value {
    let ttl = operation.ttl_seconds.map(|ttl| ttl.0);
    let done = match operation.op {
        Verb::Get => Ok(match cache.find(key).await {
            Answer { value: Some(value), degraded } => view(Answer { value, degraded }),
            Answer { value: None, degraded } => json!({ "value": null, "ttl_ms": null, "degraded": degraded }),
        }),
        Verb::Set => cache
            .set(key, &operation.value.unwrap_or_default(), ttl)
            .await
            .map(|kept| json!({ "success": true, "degraded": kept.degraded })),
        Verb::Delete => {
            let gone = cache.delete(key).await;
            Ok(json!({ "deleted": gone.value, "degraded": gone.degraded }))
        }
        Verb::Exists => {
            let there = cache.exists(key).await;
            Ok(json!({ "exists": there.value, "degraded": there.degraded }))
        }
        Verb::Ttl => {
            let left = cache.ttl(key).await;
            Ok(json!({ "ttl_ms": left.value.map(millis), "degraded": left.degraded }))
        }
        Verb::Increment => cache
            .increment(key, operation.amount.unwrap_or(1), ttl)
            .await
            .map(|sum| json!({ "value": sum.value, "degraded": sum.degraded })),
    };
    done.unwrap_or_else(|bad| {
        let detail = bad.to_string();
        json!({ "error": detail, "code": Problem::from(bad).code().as_str() })
    })
}
