//! Bars that the platform keeps itself: a job names them by `source.candles_key`.

use std::fmt::{Debug, Formatter};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use windlass_jobs::{Outcome, RunError};

use crate::ChartArgs;
use crate::args::{Candles, Source};

/// Where bars are kept.
pub trait CandleStore: Send + Sync {
    /// The newest `most` bars of a symbol, oldest first; `None` when none are kept. `timeframe` is as
    /// in the key, such as `1h`.
    ///
    /// # Errors
    /// `timeframe_unknown`, or why the store cannot answer at the moment.
    fn newest<'a>(
        &'a self,
        symbol: &'a str,
        timeframe: &'a str,
        most: usize,
    ) -> BoxFuture<'a, Result<Option<Candles>, CandleError>>;
}

/// Why a store gives no bars.
#[derive(Debug)]
pub enum CandleError {
    /// It has no bars of that length.
    Timeframe(String),
    /// It does not answer.
    Away(String),
}

/// The store of this process, where it has one.
#[derive(Clone, Default)]
pub struct Kept(Option<Arc<dyn CandleStore>>);

impl Kept {
    /// Bars come from here.
    pub fn new(store: impl CandleStore + 'static) -> Self {
        Self(Some(Arc::new(store)))
    }

    /// Puts the bars a chart's args name in their place. Args that are not acceptable are left as they
    /// are, for the check.
    ///
    /// # Errors
    /// How the job ends: in failure when there are no such bars, tried again while the store is away.
    pub(crate) async fn resolve(&self, args: &mut Value) -> Result<(), Outcome> {
        let Ok(Some(Source::CandlesKey(key))) =
            serde_json::from_value::<Option<Source>>(args.get("source").cloned().unwrap_or_default())
        else {
            return Ok(());
        };
        let (Some((symbol, timeframe)), Ok(chart)) = (split(&key), serde_json::from_value::<ChartArgs>(args.clone()))
        else {
            return Ok(());
        };
        let Some(store) = &self.0 else {
            return Err(Outcome::fatal("candles_unknown", "this worker has no store of candles"));
        };
        match store.newest(symbol, timeframe, chart.wanted_bars()).await {
            Ok(Some(candles)) => {
                args["candles"] = json!(candles);
                args["source"] = Value::Null;
                Ok(())
            }
            Ok(None) => Err(Outcome::fatal("candles_unknown", format!("no candles of {key} are kept"))),
            Err(CandleError::Timeframe(why)) => Err(Outcome::fatal("candles_unknown", why)),
            Err(CandleError::Away(why)) => {
                Err(Outcome::Retry { after: None, error: RunError::new("candles_unavailable", why) })
            }
        }
    }
}

impl Debug for Kept {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Kept" } else { "Kept(none)" })
    }
}

/// The symbol and the timeframe of a key; a symbol may have colons of its own.
pub(crate) fn split(key: &str) -> Option<(&str, &str)> {
    key.rsplit_once(':').filter(|(symbol, timeframe)| !symbol.is_empty() && !timeframe.is_empty())
}
