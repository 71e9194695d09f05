//! The market over HTTP: quotes in; prices, ticks and candles out; positions.

pub(crate) mod insight;
pub(crate) mod metrics;
pub(crate) mod positions;
pub(crate) mod prices;
pub(crate) mod quotes;
pub(crate) mod socket;

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::routing::{get, post};
use windlass_market::positions::{Class, Error, Instrument, Positions};

use crate::Shared;
use crate::problem::{Code, Problem, chain};

/// The routes of the market.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/quotes", post(quotes::post))
        .route("/api/quotes/socket", get(socket::open))
        .route("/api/prices", get(prices::all))
        .route("/api/prices/{symbol}", get(prices::one))
        .route("/api/ticks/{symbol}", get(prices::ticks))
        .route("/api/candles/{symbol}", get(prices::candles))
        .route("/api/instruments", get(prices::instruments))
        .route("/api/instruments/{symbol}", get(prices::instrument).put(prices::put_instrument))
        .route("/api/accounts/{id}", get(positions::account).put(positions::put_account))
        .route("/api/positions", get(positions::list).post(positions::open))
        .route("/api/positions/next", get(positions::next))
        .route("/api/positions/{id}", get(positions::show).patch(positions::change))
        .route("/api/positions/{id}/close", post(positions::close))
        .route("/api/positions/{id}/history", get(positions::history))
        .route("/api/positions/{id}/explain", get(positions::why))
        .route("/api/market/latency", get(insight::latency))
        .route("/api/market/stats", get(insight::stats))
        .route("/api/market/audit", get(insight::audit))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Refused { code: "already_closed", .. } => return Self::new(Code::AlreadyClosed, error.to_string()),
            Error::Refused { code: "version_changed", .. } => {
                return Self::new(Code::VersionChanged, error.to_string());
            }
            Error::Refused { field, code, why } => {
                let violation = serde_json::json!({ "path": format!("/{field}"), "code": code, "message": why });
                return Self::new(Code::PositionInvalid, error.to_string())
                    .with("violations", vec![violation])
                    .with("violations_total", 1);
            }
            _ => {}
        }
        tracing::warn!(error = %chain(&error), "the tables of the market failed");
        match error.class() {
            Class::Retryable => {
                Self::new(Code::MarketUnavailable, "the tables of the market do not answer at the moment")
                    .retry_after(1)
            }
            _ => Self::new(Code::Internal, "the server made a mistake"),
        }
    }
}

/// The symbol of a path.
fn symbol_of(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(symbol)| symbol)
        .map_err(|_| Problem::new(Code::NameInvalid, "the path holds a name that is no text"))
}

/// An instrument that is traded.
async fn known(store: &Positions, symbol: &str) -> Result<Instrument, Problem> {
    store.instrument(symbol).await?.ok_or_else(unknown_symbol)
}

fn unknown_symbol() -> Problem {
    Problem::new(Code::SymbolNotFound, "no instrument has this symbol; PUT /api/instruments/{symbol} makes one")
}
