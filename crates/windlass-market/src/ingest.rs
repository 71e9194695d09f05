//! Quotes on their way into the tables: what comes while one batch is written goes into the next.

use std::sync::{Arc, OnceLock};

use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::market::Inner;
use crate::positions::{Error, RawQuote, Reject};

/// Quotes that may wait at once in a process.
pub const MAX_WAITING: usize = 100_000;
/// Quotes written by one transaction, unless one call alone brings more.
const BATCH: usize = 5_000;

/// What became of the quotes of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Kept, and newer than all before of their symbol.
    pub accepted: u64,
    /// All others, in their order.
    pub rejected: Vec<Reject>,
}

/// Quotes that were not taken in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TakeError {
    /// As many wait as may: come again.
    #[error("{MAX_WAITING} quotes wait to be taken in, as many as may")]
    Full,
    /// The tables cannot be used.
    #[error("quotes are not kept")]
    Store(#[source] Arc<Error>),
}

struct Ask {
    quotes: Vec<RawQuote>,
    reply: oneshot::Sender<Result<Answer, TakeError>>,
    _room: OwnedSemaphorePermit,
}

/// The way in, begun by the first quotes.
pub(crate) struct Ingest {
    asks: OnceLock<mpsc::UnboundedSender<Ask>>,
    room: Arc<Semaphore>,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { asks: OnceLock::new(), room: Arc::new(Semaphore::new(MAX_WAITING)) }
    }
}

impl Ingest {
    /// Hands quotes over and waits until they are kept.
    pub(crate) async fn take(&self, market: &Inner, quotes: Vec<RawQuote>) -> Result<Answer, TakeError> {
        if quotes.is_empty() {
            return Ok(Answer::default());
        }
        let count = u32::try_from(quotes.len()).map_err(|_| TakeError::Full)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(count).map_err(|_| TakeError::Full)?;
        let asks = self.asks.get_or_init(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(run(market.weak(), receiver));
            sender
        });
        let (reply, answer) = oneshot::channel();
        // Neither fails while the market is there: its task ends with it.
        let _ = asks.send(Ask { quotes, reply, _room: room });
        answer.await.unwrap_or(Err(TakeError::Full))
    }
}

/// Takes in what waits, batch by batch, until the market is gone.
async fn run(market: std::sync::Weak<Inner>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    while let Some(first) = asks.recv().await {
        let Some(market) = market.upgrade() else { return };
        let mut count = first.quotes.len();
        let mut batch = vec![first];
        while count < BATCH
            && let Ok(next) = asks.try_recv()
        {
            count += next.quotes.len();
            batch.push(next);
        }
        let (mut all, mut parts) = (Vec::with_capacity(count), Vec::with_capacity(batch.len()));
        for Ask { quotes, reply, _room } in batch {
            parts.push((all.len(), reply, _room));
            all.extend(quotes);
        }
        let taken = take(&market, &all).await;
        let mut end = all.len();
        for (start, reply, _room) in parts.into_iter().rev() {
            let answer = match &taken {
                Ok(rejects) => Ok(part(rejects, start, end)),
                Err(error) => Err(TakeError::Store(Arc::clone(error))),
            };
            // Whoever asked may be gone; the quotes are in all the same.
            let _ = reply.send(answer);
            end = start;
        }
    }
}

async fn take(market: &Inner, quotes: &[RawQuote]) -> Result<Vec<Reject>, Arc<Error>> {
    let taken = market.store().await.map_err(Arc::new)?.take_quotes(quotes).await.map_err(Arc::new)?;
    market.quotes_came();
    for switched in &taken.switched {
        tracing::warn!(symbol = switched.symbol, from = switched.from, to = switched.to, "another source is believed");
    }
    market.prices.put(&taken.fresh);
    market.count_quotes(taken.accepted, &taken.rejected);
    Ok(taken.rejects)
}

/// The answer to one call of a batch.
fn part(rejects: &[Reject], start: usize, end: usize) -> Answer {
    let own = rejects.iter().filter(|reject| (start..end).contains(&reject.index));
    let rejected: Vec<Reject> = own.map(|reject| Reject { index: reject.index - start, code: reject.code }).collect();
    Answer { accepted: (end - start - rejected.len()) as u64, rejected }
}
