//! `POST /api/quotes`: prices of feeds on their way in.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use windlass_market::TakeError;
use windlass_market::positions::Reject;
use windlass_market::wire;

use crate::problem::{Code, Problem};
use crate::{Shared, body, json as strict};

/// Most quotes of one call.
pub(crate) const MAX_QUOTES: usize = 50_000;

/// 202 `{"accepted", "rejected": [{"index", "code"}]}` for one quote or a list of them.
pub(crate) async fn post(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    body::check_json(&headers)?;
    let body = body::read(&shared, &headers, body, shared.options.quote_bytes).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(take(&shared, &body.bytes).await?)).into_response())
}

/// Takes in a quote or a list of quotes as JSON, and answers what became of them.
pub(crate) async fn take(shared: &Shared, bytes: &[u8]) -> Result<Value, Problem> {
    strict::parse(bytes).map_err(|detail| Problem::new(Code::JsonInvalid, detail))?;
    let items =
        wire::parse(bytes).ok_or_else(|| Problem::new(Code::BodyInvalid, "a quote or a list of quotes is allowed"))?;
    if items.len() > MAX_QUOTES {
        let detail = format!("{} quotes; at most {MAX_QUOTES} are allowed in one call", items.len());
        return Err(Problem::new(Code::BatchTooLarge, detail));
    }
    let wire::Read { quotes, places, rejects: mut rejected } = wire::read(&items);
    let answer = shared.market.take_quotes(quotes).await?;
    rejected.extend(answer.rejected.iter().map(|reject| Reject { index: places[reject.index], code: reject.code }));
    rejected.sort_by_key(|reject| reject.index);
    Ok(json!({ "accepted": answer.accepted, "rejected": rejected }))
}

impl From<TakeError> for Problem {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Full => Self::new(Code::QuotesFull, error.to_string()).retry_after(1),
            TakeError::Store(error) => {
                tracing::warn!(error = %crate::problem::chain(&error), "quotes are not kept");
                let detail = "the tables of the market do not answer at the moment";
                Self::new(Code::MarketUnavailable, detail).retry_after(1)
            }
        }
    }
}
