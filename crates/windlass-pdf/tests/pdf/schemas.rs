//! What is published about the args of every kind: it takes what the kind takes, and refuses what no
//! kind would.

use serde_json::{Value, json};
use windlass_pdf::{Calibration, CardSheet, Merge, Offset, Report, register};
use windlass_producer::Catalogue;
use windlass_worker::{IsolatedKind, Registry};

/// What the published schema of a kind says against args, each written `path keyword`.
pub(crate) fn published<K: IsolatedKind>(kind: &K, args: &Value) -> Vec<String> {
    thread_local! {
        static CATALOGUE: Catalogue = {
            let mut registry = Registry::new();
            register(&mut registry);
            Catalogue::new(registry.catalogue())
        };
    }
    let name = kind.spec().name;
    CATALOGUE.with(|catalogue| {
        assert!(catalogue.get(name).unwrap().schema.is_some(), "{name} publishes no schema");
        let found = catalogue.check(name, args).unwrap();
        found.iter().map(|v| format!("{} {}", v.path, v.code)).collect()
    })
}

fn blob() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

/// Every job that the other tests run passes its schema too (see `Job`); these must not.
#[test]
fn schemas_refuse_what_no_worker_takes() {
    let card = json!([{"front": blob()}]);
    let sheet = |args: Value, expected: &[&str]| assert_eq!(published(&CardSheet, &args), expected, "{args}");
    sheet(json!({"cards": card}), &[]);
    sheet(json!({"cards": []}), &["/cards minItems"]);
    sheet(json!({"cards": card, "ppi": 601}), &["/ppi maximum"]);
    sheet(json!({"cards": card, "quality": "75"}), &["/quality type"]);
    sheet(json!({"cards": [{"front": "a.png"}]}), &["/cards/0/front pattern"]);
    sheet(json!({"cards": [{}]}), &["/cards/0 required"]);
    sheet(json!({"cards": card, "colour": 1}), &[" additionalProperties"]);
    sheet(json!({"cards": card, "layout": {"size": "a4"}}), &["/layout additionalProperties"]);
    assert_eq!(published(&CardSheet, &json!({"cards": card, "mode": "print"})).len(), 1);

    assert_eq!(published(&Offset, &json!({"pdf": blob(), "x": 3})), [""; 0]);
    assert_eq!(published(&Offset, &json!({"x": 3})), [" required"]);
    assert_eq!(published(&Merge, &json!({"pdfs": [blob(), "b"]})), ["/pdfs/1 pattern"]);
    assert_eq!(published(&Calibration, &json!({})), [""; 0]);
    assert_eq!(published(&Calibration, &json!({"papers": "a4"})), [" additionalProperties"]);

    let report = |block: Value| published(&Report, &json!({"blocks": [block]}));
    assert_eq!(report(json!({"type": "rule"})), [""; 0]);
    for bad in [
        json!({"type": "html", "text": "x"}),
        json!({"type": "rule", "wide": true}),
        json!({"type": "heading"}),
        json!({"type": "image", "blob": "x"}),
        json!({"type": "table", "columns": [], "rows": []}),
        json!({"type": "chart", "chart": {"symbol": "GOOG"}}),
    ] {
        assert!(!report(bad.clone()).is_empty(), "{bad}");
    }
}

/// People read them: no links of rustdoc, no code, and the numbers that are meant.
#[test]
fn schemas_are_written_for_people() {
    let schema = CardSheet.schema().unwrap();
    let text = schema.to_string();
    assert!(!text.contains("[`") && !text.contains("```"), "{text}");
    assert_eq!(schema["properties"]["ppi"]["maximum"], 600);
    assert_eq!(schema["properties"]["ppi"]["default"], 300);
    assert!(
        schema["description"].as_str().unwrap().starts_with("What to print, and how."),
        "{}",
        schema["description"]
    );
}
