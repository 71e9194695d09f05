//! What is published about the args of every kind: it takes what the kind takes, and refuses what no
//! kind would. `refusals` holds every good and every malformed chart against it too.

use serde_json::{Value, json};
use windlass_chart::{ChartRender, register};
use windlass_producer::Catalogue;
use windlass_worker::{IsolatedKind, Registry};

use crate::{goog, three_bars};

/// What the published schema of a kind says against args, each written `path keyword`.
pub(crate) fn published(kind: &str, args: &Value) -> Vec<String> {
    thread_local! {
        static CATALOGUE: Catalogue = {
            let mut registry = Registry::new();
            register(&mut registry, windlass_chart::Defaults::default(), None, &windlass_chart::Kept::default());
            Catalogue::new(registry.catalogue())
        };
    }
    CATALOGUE.with(|catalogue| {
        assert!(catalogue.get(kind).expect("it is known").schema.is_some(), "{kind} publishes no schema");
        let found = catalogue.check(kind, args).expect("it is known");
        found.iter().map(|v| format!("{} {}", v.path, v.code)).collect()
    })
}

#[track_caller]
fn check(more: Value, expected: &[&str]) {
    let mut args = three_bars();
    args.as_object_mut().expect("args").extend(more.as_object().expect("members").clone());
    assert_eq!(published("chart.render", &args), expected, "{args}");
}

#[test]
fn schemas_refuse_what_no_worker_takes() {
    check(json!({}), &[]);
    check(json!({"colour": 1}), &[" additionalProperties"]);
    check(json!({"width_px": 100}), &["/width_px minimum"]);
    check(json!({"scale": 4}), &["/scale maximum"]);
    check(json!({"interval": "7m"}), &["/interval oneOf"]);
    check(json!({"renko": {"brick": "atr:14"}, "colors": {"up": "#00ff00"}}), &[]);
    check(json!({"renko": {"brick": 0}}), &["/renko anyOf"]);
    check(json!({"colors": {"up": "red"}}), &["/colors/up anyOf"]);
    check(json!({"panels": [{"kind": "rsi", "period": 9, "weight": 2}, {"kind": "volume"}]}), &[]);
    check(json!({"overlays": [{"kind": "ichimoku"}, {"kind": "sma", "period": 20}]}), &[]);
    for bad in [
        json!({"panels": [{"kind": "rsi", "periods": 9}]}),
        json!({"panels": [{"kind": "volume", "period": 9}]}),
        json!({"panels": [{"period": 9}]}),
        json!({"overlays": [{"kind": "sma"}]}),
        json!({"overlays": [{"kind": "alma", "period": 9}]}),
    ] {
        let mut args = three_bars();
        args.as_object_mut().expect("args").extend(bad.as_object().expect("members").clone());
        assert!(!published("chart.render", &args).is_empty(), "{bad}");
    }
    let cell = |value: Value| json!({"candles": {"t": [1], "o": [1], "h": [1], "l": [1], "c": [value]}});
    check(cell(json!(1)), &[]);
    check(cell(json!("1")), &["/candles/c/0 type"]);
    assert_eq!(published("chart.book", &json!({"charts": [three_bars()]})), [""; 0]);
    assert_eq!(published("chart.book", &json!({"charts": []})), ["/charts minItems"]);
    assert_eq!(published("images.cleanup", &json!({"all": true})).len(), 1);
}

/// Args as this program writes them, with every field there is.
#[test]
fn whole_args_pass_their_schema() {
    let args = serde_json::to_value(goog(200)).expect("JSON");
    assert_eq!(published("chart.render", &args), [""; 0]);
}

/// People read them: no links of rustdoc, no code; and they travel.
#[test]
fn schemas_are_written_for_people() {
    let text = ChartRender::default().schema().expect("a schema").to_string();
    assert!(!text.contains("[`") && !text.contains("```"), "{text}");
    assert!(text.len() < 48_000, "{} bytes", text.len());
}
