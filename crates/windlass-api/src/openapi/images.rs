//! Stored charts, ours and those of the replaced image store.

use serde_json::{Value, json};

use super::schemas::{array, count, flag, number, object, or_null, text};
use super::{Op, named, op};
use crate::problem::Code;

const PICTURES: [&str; 5] = ["image/png", "image/jpeg", "image/webp", "image/svg+xml", "application/octet-stream"];

fn counts() -> Value {
    object(
        json!({ "total_images": count(), "total_size_mb": number(), "max_age_hours": number(), "max_size_mb": number() }),
    )
}

fn done() -> Value {
    object(json!({ "success": flag(), "message": text() }))
}

pub(super) fn operations() -> Vec<Op> {
    let picture = |op: Op| op.sends(200, "The picture", &PICTURES).nothing(304, "Unchanged");
    let there = |op: Op| op.nothing(200, "It is there").nothing(304, "Unchanged");
    let of_symbol = |op: Op| {
        op.query_needed("symbol", text(), "As exchanges write it")
            .query("interval", text(), "Only of this interval")
            .fails(&[Code::QueryInvalid])
    };
    let page = object(json!({ "images": array(named("Image")), "next": or_null("string") }));
    let mut all = vec![
        op("GET", "/api/charts", "Stored charts, newest first")
            .query("symbol", text(), "Only of this symbol")
            .paged()
            .answers(200, "A page", page),
        of_symbol(picture(op("GET", "/api/charts/latest", "The newest chart of a symbol"))),
        of_symbol(there(op("HEAD", "/api/charts/latest", "Whether a symbol has a chart"))),
        op("GET", "/api/charts/stats", "How many charts are kept, and how well they serve").answers(
            200,
            "Counts of both places",
            object(json!({ "store": text(), "redis": {}, "files": {}, "limits": {} })),
        ),
        picture(op("GET", "/api/charts/{id}", "A chart")),
        there(op("HEAD", "/api/charts/{id}", "Whether a chart is there")),
        op("DELETE", "/api/charts/{id}", "Delete a chart").answers(
            200,
            "Deleted",
            object(json!({ "deleted": flag(), "image_id": text() })),
        ),
        picture(op("GET", "/api/charts/{id}/thumb", "A chart's thumbnail")),
        there(op("HEAD", "/api/charts/{id}/thumb", "Whether a chart has a thumbnail")),
    ];
    all.extend(old());
    for op in &mut all {
        op.errors.extend([Code::ImageNotFound, Code::StoreUnavailable]);
    }
    all
}

fn old() -> Vec<Op> {
    let metadata = object(json!({ "symbol": text(), "interval": text(), "format": text(), "size_bytes": count() }));
    let item = object(json!({ "data": text(), "metadata": metadata, "key": text() }));
    vec![
        op("GET", "/redis/images/stats", "Counts, as the replaced store answered them").answers(
            200,
            "Counts",
            object(json!({ "success": flag(), "stats": counts() })),
        ),
        op("POST", "/redis/images/cleanup", "Remove what is past its age or over the size").answers(
            200,
            "Cleaned up",
            done(),
        ),
        op("GET", "/redis/images/{symbol}", "The charts of a symbol, with their bytes")
            .answers(200, "The charts", array(item))
            .fails(&[Code::QueryInvalid]),
        op("DELETE", "/redis/images/{symbol}", "Delete the charts of a symbol")
            .answers(200, "Deleted", done())
            .fails(&[Code::QueryInvalid]),
        op("DELETE", "/redis/images", "Delete all charts").answers(200, "Deleted", done()),
        op("GET", "/charts/storage/stats", "Files and Redis side by side").answers(
            200,
            "Counts",
            object(json!({ "success": flag(), "redis": counts(), "files": object(json!({ "total_files": count() })) })),
        ),
        op("POST", "/charts/cleanup", "Clean up both stores").answers(200, "Cleaned up", done()),
        op("DELETE", "/charts/{symbol}/{interval}", "Delete the charts of a symbol and interval")
            .answers(200, "Deleted, or none was there", done())
            .fails(&[Code::QueryInvalid]),
    ]
}
