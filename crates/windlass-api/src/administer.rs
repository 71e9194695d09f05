//! `/api/keys` and `/api/audit`: who may ask, and who administered what.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::Timestamp;
use windlass_worker::schemars::JsonSchema;

use crate::auth::Caller;
use crate::keys::{Error, Key, MAX_OVERLAP, NewKey, OVERLAP, Rate, rate_of_object};
use crate::paging::{Listing, MAX_PAGE, PAGE, PageQuery, asked, page};
use crate::problem::{Code, Problem, chain};
use crate::scope::Grant;
use crate::{Shared, audit as log, caching};

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Refused { .. } => Self::new(Code::BodyInvalid, error.to_string()),
            Error::NotFound => Self::new(Code::ApiKeyNotFound, error.to_string()),
            Error::TooMany => Self::new(Code::TooManyKeys, error.to_string()),
            Error::Busy => Self::new(Code::StoreUnavailable, error.to_string()).retry_after(1),
            Error::Store(_) => {
                tracing::warn!(error = %chain(&error), "the store of keys failed");
                Self::new(Code::StoreUnavailable, "the store of keys does not answer at the moment").retry_after(1)
            }
        }
    }
}

/// `GET /api/keys`: `{"keys": [{"id", "name", "status": "live" | "expired" | "revoked", "scopes",
/// "tenant", "rate", "created_at", "expires_at", "revoked_at", "last_used_at", "secrets"}], "next"}`,
/// the oldest first.
pub(crate) async fn keys(
    State(shared): State<Shared>,
    caller: Caller,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let listing = Listing { path: "/api/keys", filter: "", caller: &caller };
    let signer = shared.ring.signer();
    let (after, limit) = asked(query)?.read(signer, &listing, MAX_PAGE)?;
    let (all, end) = page(shared.keys.all().await?, |(key, _)| &key.id, after.as_deref(), limit);
    let now = Timestamp::now();
    let view = |(key, used_at): &(Key, Option<Timestamp>)| key.to_json(now, shared.ring.used_at(&key.id).max(*used_at));
    let keys: Vec<Value> = all.iter().map(view).collect();
    let next = end.map(|end| listing.seal(signer, &end));
    Ok(axum::Json(json!({ "keys": keys, "next": next })).into_response())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Create {
    #[schemars(length(min = 1, max = 100))]
    name: String,
    #[schemars(with = "Vec<String>", length(min = 1, max = 100))]
    scopes: Vec<Grant>,
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    tenant: Option<String>,
    #[serde(default, deserialize_with = "rate_of_object")]
    rate: Option<Rate>,
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    expires_at: Option<Timestamp>,
}

/// `POST /api/keys` with `{"name", "scopes", "tenant", "rate": {"limit", "period_ms"}, "expires_at"}`:
/// 201 with the members of a listed key and `key`, which is said only here. Nobody grants what they
/// do not have.
pub(crate) async fn create_key(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Create { name, scopes, tenant, rate, expires_at } = caching::read(&shared, &headers, body).await?;
    if let Some(grant) = scopes.iter().find(|grant| !caller.may_grant(grant)) {
        let detail = format!("the key that asks does not allow {grant} itself");
        return Err(Problem::new(Code::ScopeMissing, detail).with("scope", grant.to_string()));
    }
    let (text, key) = shared.keys.create(NewKey { name, scopes, tenant, rate, expires_at }).await?;
    Ok(said(&shared, &text, &key).await)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "windlass_worker::schemars")]
pub(crate) struct Rotate {
    #[schemars(range(max = 2_592_000))]
    overlap_seconds: Option<u64>,
}

/// `POST /api/keys/{id}/rotate` with `{"overlap_seconds": 86400}`: 201 as for a new key. The secret
/// before is taken for that long more, an older one no longer.
pub(crate) async fn rotate_key(
    State(shared): State<Shared>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = id_of(id)?;
    let Rotate { overlap_seconds } = caching::read(&shared, &headers, body).await?;
    let overlap = overlap_seconds.map_or(OVERLAP, Duration::from_secs);
    if overlap > MAX_OVERLAP {
        let detail = format!("overlap_seconds: 0 to {} is allowed", MAX_OVERLAP.as_secs());
        return Err(Problem::new(Code::BodyInvalid, detail));
    }
    check_grants(&shared, &caller, &id).await?;
    let (text, key) = shared.keys.rotate(&id, overlap).await?;
    Ok(said(&shared, &text, &key).await)
}

/// Who rotates a key has it then: nobody takes over one that may do more.
async fn check_grants(shared: &Shared, caller: &Caller, id: &str) -> Result<(), Problem> {
    let all = shared.keys.all().await?;
    let key = all.iter().map(|(key, _)| key).find(|key| key.id == id).ok_or(Error::NotFound)?;
    match key.scopes.iter().find(|grant| !caller.may_grant(grant)) {
        Some(grant) => {
            let detail = format!("the key that asks does not allow {grant} itself");
            Err(Problem::new(Code::ScopeMissing, detail).with("scope", grant.to_string()))
        }
        None => Ok(()),
    }
}

/// A key, said the only time.
async fn said(shared: &Shared, text: &str, key: &Key) -> Response {
    refresh(shared).await;
    let mut body = key.to_json(Timestamp::now(), None);
    body["key"] = text.into();
    (StatusCode::CREATED, axum::Json(body)).into_response()
}

/// `DELETE /api/keys/{id}`: ends a key; at once here, within seconds in other processes.
pub(crate) async fn revoke_key(
    State(shared): State<Shared>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let key = shared.keys.revoke(&id_of(id)?).await?;
    refresh(&shared).await;
    Ok(axum::Json(key.to_json(Timestamp::now(), None)).into_response())
}

/// A change counts here before it is answered; if the store fails now, a second later.
async fn refresh(shared: &Shared) {
    if let Err(error) = shared.ring.refresh().await {
        tracing::warn!(error = %chain(&error), "the keys are read anew in a second");
    }
}

fn id_of(id: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    id.map(|Path(id)| id).map_err(|_| Error::NotFound.into())
}

/// `GET /api/audit`: `{"entries": [{"at", "who", "name", "action", "target", "status", "request_id"}],
/// "next"}`, newest first, of the newest 2,000.
pub(crate) async fn audit(
    State(shared): State<Shared>,
    caller: Caller,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let listing = Listing { path: "/api/audit", filter: "", caller: &caller };
    let signer = shared.ring.signer();
    let (from, limit) = asked(query)?.read(signer, &listing, PAGE)?;
    let from = from.and_then(|from| from.parse().ok()).unwrap_or(0);
    let entries = log::read(shared.records.as_ref(), from, limit).await?;
    let next = (entries.len() == limit).then(|| listing.seal(signer, &(from + limit).to_string()));
    Ok(axum::Json(json!({ "entries": entries, "next": next })).into_response())
}
