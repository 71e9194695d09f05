//! Schemas that several answers share.

use serde_json::{Value, json};

/// An object with these members, all of them there; more may be.
pub(crate) fn object(members: Value) -> Value {
    let required: Vec<String> = members.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    json!({ "type": "object", "properties": members, "required": required })
}

/// An object of which these members may be absent.
pub(crate) fn object_with(members: Value, optional: Value) -> Value {
    let mut schema = object(members);
    if let (Some(properties), Value::Object(optional)) = (schema["properties"].as_object_mut(), optional) {
        properties.extend(optional);
    }
    schema
}

pub(crate) fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

pub(crate) fn text() -> Value {
    json!({ "type": "string" })
}

pub(crate) fn or_null(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

pub(crate) fn number() -> Value {
    json!({ "type": "number" })
}

pub(crate) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

pub(crate) fn flag() -> Value {
    json!({ "type": "boolean" })
}

pub(crate) fn instant() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

pub(crate) fn instant_or_null() -> Value {
    json!({ "type": ["string", "null"], "format": "date-time" })
}

/// The schemas by name.
pub(super) fn all() -> Value {
    let state = json!(["scheduled", "pending", "running", "retrying", "success", "failure", "cancelled"]);
    json!({
        "State": { "type": "string", "enum": state },
        "Problem": problem(),
        "Accepted": object_with(
            json!({
                "task_id": text(),
                "status": { "oneOf": [{ "$ref": "#/components/schemas/State" }, { "type": "null" }] },
                "status_url": text(),
            }),
            json!({
                "unique": { "enum": ["kept", "replaced"] },
                "accepted": { "enum": ["spooled"] },
                "durability": { "enum": ["fast", "replicated", "fsynced"] },
            }),
        ),
        "Task": task(),
        "Chain": super::jobs::chain(),
        "Group": super::jobs::group(),
        "Schedule": schedule(),
        "Key": key(),
        "Image": image(),
        "Degraded": { "type": "boolean", "description": "Answered by this process, for Redis is set and away" },
    })
}

fn problem() -> Value {
    object_with(
        json!({
            "type": { "type": "string", "description": "Leads to the page of the code" },
            "title": text(),
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": text(),
            "code": { "type": "string", "description": "Stable; old routes have the words of the systems they replace" },
            "request_id": text(),
            "error": { "type": "string", "description": "`detail` again, for clients of replaced systems" },
        }),
        json!({
            "violations": array(object(json!({ "path": text(), "code": text(), "message": text() }))),
            "violations_total": count(),
            "indexes": array(count()),
            "scope": text(),
            "task_ids": array(text()),
        }),
    )
}

fn task() -> Value {
    let artifact =
        object(json!({ "name": text(), "media_type": text(), "bytes": count(), "blob": text(), "url": text() }));
    object_with(
        json!({
            "task_id": text(),
            "kind": text(),
            "queue": text(),
            "status": { "$ref": "#/components/schemas/State" },
            "progress": { "type": "number", "minimum": 0, "maximum": 100 },
            "message": or_null("string"),
            "attempt": count(),
            "max_attempts": count(),
            "priority": { "enum": ["high", "normal", "low"] },
            "created_at": instant(),
            "run_at": instant_or_null(),
            "started_at": instant_or_null(),
            "completed_at": instant_or_null(),
            "worker": or_null("string"),
            "labels": { "type": "object", "additionalProperties": text() },
            "attempts": array(attempt()),
        }),
        json!({
            "expires_at": instant(),
            "args": {},
            "result": object(json!({ "value": {}, "artifacts": array(artifact) })),
            "error": { "type": "object" },
            "reason": text(),
            "skipped": flag(),
            "cached": flag(),
            "cancel_requested": flag(),
            "parents": array(text()),
            "children": array(text()),
            "waits_for": count(),
            "trace_id": { "type": "string", "pattern": "^[0-9a-f]{32}$" },
        }),
    )
}

fn attempt() -> Value {
    object_with(
        json!({
            "run": count(),
            "attempt": count(),
            "worker": or_null("string"),
            "started_at": instant_or_null(),
            "ended_at": instant_or_null(),
            "duration_ms": or_null("integer"),
            "outcome": { "enum": ["running", "success", "failure", "cancelled", "retried", "lost"] },
        }),
        json!({ "reason": text(), "error": { "type": "object" } }),
    )
}

fn schedule() -> Value {
    object(json!({ "name": text(), "plan": text(), "kind": text() }))
}

fn key() -> Value {
    object(json!({
        "id": text(),
        "name": text(),
        "status": { "enum": ["live", "expired", "revoked"] },
        "scopes": array(text()),
        "tenant": or_null("string"),
        "rate": or_null("object"),
        "created_at": instant(),
        "expires_at": instant_or_null(),
        "revoked_at": instant_or_null(),
        "last_used_at": instant_or_null(),
        "secrets": { "type": "integer", "minimum": 0, "maximum": 2 },
    }))
}

fn image() -> Value {
    object(json!({
        "image_id": text(),
        "url": text(),
        "thumb_url": or_null("string"),
        "etag": text(),
        "symbol": text(),
        "interval": text(),
        "type": text(),
        "theme": text(),
        "format": text(),
        "width_px": count(),
        "height_px": count(),
        "bytes": count(),
        "created_at": instant(),
        "expires_at": instant(),
    }))
}
