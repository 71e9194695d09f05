//! Keys, the audit log, the result cache.

use serde_json::{Value, json};

use super::schemas::{array, count, flag, instant, number, object, or_null, text};
use super::{Op, named, op, schema_of};
use crate::administer;
use crate::problem::Code;

/// A key with its secret: `key` is said only here.
fn said() -> Value {
    json!({ "allOf": [named("Key"), object(json!({ "key": text() }))] })
}

pub(super) fn operations() -> Vec<Op> {
    let entry =
        object(json!({ "at": instant(), "who": text(), "action": text(), "target": text(), "status": count() }));
    let mut all = vec![
        op("GET", "/api/keys", "All API keys, the oldest first, without their secrets").paged().answers(
            200,
            "A page",
            object(json!({ "keys": array(named("Key")), "next": or_null("string") })),
        ),
        op("POST", "/api/keys", "Make an API key; its secret is said only now")
            .json(schema_of::<administer::Create>())
            .answers(201, "Made", said())
            .fails(&[Code::BodyInvalid, Code::TooManyKeys]),
        op("DELETE", "/api/keys/{id}", "Revoke an API key")
            .answers(200, "Revoked", named("Key"))
            .fails(&[Code::ApiKeyNotFound]),
        op("POST", "/api/keys/{id}/rotate", "Give an API key a second secret; it is said only now")
            .json(schema_of::<administer::Rotate>())
            .answers(201, "Rotated", said())
            .fails(&[Code::BodyInvalid, Code::ApiKeyNotFound]),
        op("GET", "/api/audit", "Who administered what, and who was refused, newest first").paged().answers(
            200,
            "A page",
            object(json!({ "entries": array(entry), "next": or_null("string") })),
        ),
        op("GET", "/api/log", "What the process that answers logs")
            .answers(200, "Its filter", object(json!({ "filter": text() })))
            .fails(&[Code::NotFound]),
        op("PUT", "/api/log", "Change what the process that answers logs, until it ends or reads its settings again")
            .json(schema_of::<crate::logging::Change>())
            .answers(200, "The new filter", object(json!({ "filter": text() })))
            .fails(&[Code::BodyInvalid, Code::NotFound]),
        op("GET", "/api/cache/stats", "How much of results and artifacts is kept, and how well it serves").answers(
            200,
            "Counts",
            object(json!({
                "cache_size_mb": number(), "max_size_mb": number(), "entry_count": count(),
                "hit_rate": { "type": "number", "minimum": 0, "maximum": 1 },
            })),
        ),
        op("POST", "/api/cache/clear", "Forget every result").answers(
            200,
            "Forgotten",
            object(json!({ "success": flag(), "message": text(), "cleared": count() })),
        ),
    ];
    for op in &mut all {
        op.errors.push(Code::StoreUnavailable);
    }
    all
}
