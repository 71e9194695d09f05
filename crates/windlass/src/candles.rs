//! Bars of charts from the candles of the market.

use futures_util::future::BoxFuture;
use windlass_chart::args::Candles;
use windlass_chart::{CandleError, CandleStore};
use windlass_jobs::chain;
use windlass_market::candle::{Candle, Timeframe};
use windlass_market::{Market, price};

/// The market, as charts ask it.
pub(crate) struct MarketCandles(pub(crate) Market);

impl CandleStore for MarketCandles {
    fn newest<'a>(
        &'a self,
        symbol: &'a str,
        timeframe: &'a str,
        most: usize,
    ) -> BoxFuture<'a, Result<Option<Candles>, CandleError>> {
        Box::pin(async move {
            let frame = Timeframe::parse(timeframe).map_err(|bad| CandleError::Timeframe(bad.to_string()))?;
            if !Timeframe::ALL.contains(&frame) {
                let kept = Timeframe::ALL.map(|frame| frame.to_string()).join(", ");
                return Err(CandleError::Timeframe(format!("timeframe {frame}: {kept} are kept")));
            }
            let away = |error| CandleError::Away(chain(&error));
            let instrument = self.0.store().await.map_err(away)?.instrument(symbol).await.map_err(away)?;
            let Some(instrument) = instrument else { return Ok(None) };
            let (kept, _) = self.0.candles(symbol, frame, (i64::MIN, i64::MAX), most).await.map_err(away)?;
            Ok((!kept.is_empty()).then(|| columns(&kept, instrument.digits)))
        })
    }
}

/// Bids, as decimals.
fn columns(kept: &[Candle], digits: u8) -> Candles {
    // The decimal's own nearest number, as if a client had sent it.
    let number = |text: String| text.parse().unwrap_or(f64::NAN);
    let prices = |of: fn(&Candle) -> i64| kept.iter().map(|candle| number(price::format(of(candle), digits))).collect();
    Candles {
        t: kept.iter().map(|candle| candle.start_ms as f64).collect(),
        o: prices(|candle| candle.o),
        h: prices(|candle| candle.h),
        l: prices(|candle| candle.l),
        c: prices(|candle| candle.c),
        v: Some(kept.iter().map(|candle| number(candle.v.to_string())).collect()),
    }
}
