//! Cache, locks, sessions, rate limits, and what is said of the Redis behind them.

use serde_json::{Value, json};

use super::schemas::{array, count, flag, number, object, object_with, or_null, text};
use super::{Op, named, op, schema_of};
use crate::caching::{cache, locks, rates, sessions};
use crate::problem::Code;

const NAME: [Code; 2] = [Code::NameInvalid, Code::QueryInvalid];

fn of_user(op: Op) -> Op {
    op.query("user", json!({ "type": "string", "minLength": 1, "maxLength": 512 }), "Whose value it is").fails(&NAME)
}

fn degraded(mut members: Value) -> Value {
    members["degraded"] = named("Degraded");
    object(members)
}

pub(super) fn operations() -> Vec<Op> {
    [caches(), locks_and_limits(), session_ops(), health()].into_iter().flatten().collect()
}

fn caches() -> Vec<Op> {
    let removed = degraded(json!({ "removed": count() }));
    vec![
        op("POST", "/api/cache", "Up to 1,000 operations at once")
            .json(schema_of::<cache::Batch>())
            .answers(
                200,
                "What each answered, in order",
                object(json!({ "results": array(json!({ "type": "object" })) })),
            )
            .fails(&[Code::BatchTooLarge, Code::BodyInvalid, Code::NameInvalid]),
        of_user(op("DELETE", "/api/cache", "Clear all values of a user, in all namespaces").answers(
            200,
            "Cleared",
            removed.clone(),
        )),
        of_user(
            op("DELETE", "/api/cache/{namespace}", "Clear a namespace, or a user in it")
                .answers(200, "Cleared", removed),
        ),
        of_user(op("HEAD", "/api/cache/{namespace}/{key}", "Whether a value is there").nothing(200, "It is"))
            .fails(&[Code::KeyNotFound]),
        of_user(op("GET", "/api/cache/{namespace}/{key}", "Read a value").answers(
            200,
            "The value",
            degraded(json!({ "value": {}, "ttl_ms": count() })),
        ))
        .fails(&[Code::KeyNotFound]),
        of_user(op("PUT", "/api/cache/{namespace}/{key}", "Keep a value").json(schema_of::<cache::Put>()).answers(
            200,
            "Kept",
            degraded(json!({ "success": flag() })),
        ))
        .fails(&[Code::BodyInvalid]),
        of_user(op("DELETE", "/api/cache/{namespace}/{key}", "Forget a value").answers(
            200,
            "Whether it was there",
            degraded(json!({ "deleted": flag() })),
        )),
        of_user(
            op("POST", "/api/cache/{namespace}/{key}/increment", "Count a value up or down")
                .json(schema_of::<cache::Increment>())
                .answers(200, "The sum", degraded(json!({ "value": { "type": "integer" } }))),
        )
        .fails(&[Code::NotANumber, Code::BodyInvalid]),
    ]
}

fn locks_and_limits() -> Vec<Op> {
    let token = json!({ "type": "string" });
    vec![
        op("POST", "/api/locks/{name}", "Take a lock")
            .json(schema_of::<locks::Acquire>())
            .answers(
                201,
                "Taken",
                degraded(json!({ "name": text(), "token": text(), "fence": count(), "ttl_ms": count() })),
            )
            .fails(&[Code::LockHeld, Code::NameInvalid, Code::BodyInvalid, Code::StoreUnavailable]),
        op("PUT", "/api/locks/{name}", "Hold a lock for longer")
            .json(schema_of::<locks::Renew>())
            .answers(200, "Renewed", object(json!({ "renewed": flag() })))
            .fails(&[Code::LockLost, Code::NameInvalid, Code::BodyInvalid, Code::StoreUnavailable]),
        op("DELETE", "/api/locks/{name}", "Let go of a lock")
            .query_needed("token", token, "What taking it answered")
            .answers(200, "Released", object(json!({ "released": flag() })))
            .fails(&[Code::LockLost, Code::StoreUnavailable])
            .fails(&NAME),
        op("POST", "/api/ratelimits/{key}", "Use a rate limit")
            .json(schema_of::<rates::Use>())
            .answers(
                200,
                "Whether it may be done",
                object_with(
                    json!({
                        "allowed": flag(), "remaining": count(), "retry_after_ms": count(), "reset_ms": count(),
                        "degraded": named("Degraded"),
                    }),
                    json!({ "count": count() }),
                ),
            )
            .fails(&[Code::NameInvalid, Code::BodyInvalid]),
    ]
}

fn session_ops() -> Vec<Op> {
    let done = degraded(json!({ "success": flag() }));
    vec![
        op("POST", "/api/sessions", "Begin a session")
            .json(schema_of::<sessions::Put>())
            .answers(201, "Begun", degraded(json!({ "session_id": text() })))
            .fails(&[Code::BodyInvalid]),
        op("GET", "/api/sessions/{id}", "Read a session")
            .answers(200, "The session", degraded(json!({ "data": {}, "ttl_ms": count() })))
            .fails(&[Code::SessionNotFound, Code::NameInvalid]),
        op("PUT", "/api/sessions/{id}", "Keep a session")
            .json(schema_of::<sessions::Put>())
            .answers(200, "Kept", done.clone())
            .fails(&[Code::NameInvalid, Code::BodyInvalid]),
        op("DELETE", "/api/sessions/{id}", "End a session")
            .answers(200, "Whether it was there", degraded(json!({ "deleted": flag() })))
            .fails(&[Code::NameInvalid]),
        op("POST", "/api/sessions/{id}/touch", "Let a session last longer")
            .json(schema_of::<sessions::Touch>())
            .answers(200, "It does", done)
            .fails(&[Code::SessionNotFound, Code::NameInvalid, Code::BodyInvalid]),
    ]
}

fn health() -> Vec<Op> {
    let ok = object(json!({ "status": text() }));
    vec![
        op("GET", "/api/health", "Whether the queue answers; always 200").answers(
            200,
            "How it is",
            object(json!({
                "status": { "enum": ["OK", "DEGRADED"] },
                "redis": object(json!({ "status": text() })),
                "engine": text(), "version": text(), "workers": or_null("integer"),
            })),
        ),
        op("GET", "/api/health/redis", "How the cache's Redis is")
            .answers(200, "Healthy, or none is set", object(json!({ "status": text(), "connected": flag(), "timestamp": text() })))
            .answers(503, "Unhealthy", object(json!({ "status": text(), "connected": flag(), "error": text() }))),
        op("GET", "/api/health/cache", "How much is cached; always 200").answers(
            200,
            "Counts",
            object(json!({ "memory": {}, "keys": object(json!({ "total": count(), "by_namespace": {} })), "hits": count() })),
        ),
        op("GET", "/api/debug/redis", "What the cache's Redis says of itself").answers(
            200,
            "Its counters",
            object(json!({ "connected": flag(), "connected_clients": number(), "used_memory": number() })),
        ),
        op("GET", "/livez", "Whether this process should be left alone").answers(200, "It should", ok.clone()).fails(&[Code::WorkerDead]),
        op("GET", "/readyz", "Whether this process can do its work")
            .answers(200, "It can", ok)
            .fails(&[Code::QueueUnavailable, Code::WorkerNotReady]),
        op("GET", "/metrics", "What is measured, in the Prometheus text format").sends(200, "Measures", &["text/plain"]),
        op("GET", "/docs/errors/{code}", "What an error's code means").sends(200, "Its page", &["text/plain"]).fails(&[Code::NotFound]),
        op("GET", "/api/openapi.json", "This document").answers(200, "The document", json!({ "type": "object" })),
    ]
}
