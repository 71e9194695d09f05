//! Charts of bars that the platform keeps.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use windlass_chart::args::Candles;
use windlass_chart::{CandleError, CandleStore, ChartBook, ChartRender, Kept};
use windlass_jobs::Outcome;
use windlass_worker::IsolatedKind as _;

use crate::hourly;

/// Has GOOG, and loses its way with the symbol AWAY.
struct Shelf;

impl CandleStore for Shelf {
    fn newest<'a>(
        &'a self,
        symbol: &'a str,
        timeframe: &'a str,
        most: usize,
    ) -> BoxFuture<'a, Result<Option<Candles>, CandleError>> {
        let found = match (symbol, timeframe) {
            ("AWAY", _) => Err(CandleError::Away("nobody answers".to_owned())),
            ("GOOG", "1d") => Ok(Some(hourly(most).candles)),
            ("GOOG", other) => Err(CandleError::Timeframe(format!("timeframe {other:?}"))),
            _ => Ok(None),
        };
        Box::pin(std::future::ready(found))
    }
}

fn of(key: &str) -> Value {
    json!({
        "symbol": "GOOG", "interval": "1d", "source": {"candles_key": key}, "visible_bars": 60,
        "overlays": [{"kind": "sma", "period": 50}],
    })
}

/// §5: `candles_key` draws what the platform keeps: as many bars as are seen and as studies need.
#[tokio::test]
async fn bars_by_their_key_take_the_place_of_the_source() {
    let kept = Kept::new(Shelf);
    let render = ChartRender { kept: kept.clone(), ..ChartRender::default() };
    let mut args = of("GOOG:1d");
    render.resolve(&mut args).await.expect("they are kept");
    assert_eq!(args["candles"]["t"].as_array().map(Vec::len), Some(60 + 49), "visible bars and warm-up");
    assert_eq!(args["source"], Value::Null);
    let resolved = serde_json::from_value(args).expect("args");
    assert_eq!(render.check(&resolved), []);

    let mut book = json!({"charts": [of("GOOG:1d"), of("GOOG:1d")]});
    ChartBook { kept }.resolve(&mut book).await.expect("they are kept");
    assert!(book["charts"][1]["candles"]["c"].is_array(), "{book:#}");
}

#[tokio::test]
async fn bars_that_are_not_there_fail_and_a_store_that_is_away_is_tried_again() {
    let render = ChartRender { kept: Kept::new(Shelf), ..ChartRender::default() };
    for key in ["NONE:1d", "GOOG:7h"] {
        let ended = render.resolve(&mut of(key)).await;
        assert!(matches!(&ended, Err(Outcome::Fatal(e)) if e.code == "candles_unknown"), "{key}: {ended:?}");
    }
    let ended = render.resolve(&mut of("AWAY:1d")).await;
    assert!(matches!(&ended, Err(Outcome::Retry { error, .. }) if error.code == "candles_unavailable"), "{ended:?}");
    let ended = ChartRender::default().resolve(&mut of("GOOG:1d")).await;
    assert!(matches!(&ended, Err(Outcome::Fatal(e)) if e.code == "candles_unknown"), "no store: {ended:?}");
    // What is not acceptable is left for the check.
    let mut wrong = of("GOOG");
    render.resolve(&mut wrong).await.expect("left alone");
    assert_eq!(wrong, of("GOOG"));
}
