//! What people do with positions: opening, changing and closing them at the price of the moment.

use serde_json::json;

use crate::positions::{
    Change, Close, ClosingRow, Error, Instrument, NewPosition, Outcome, Position, Positions, Reach, Result, Status,
};
use crate::rules::{Fill, Quote, Reason, Rules, Side};

/// What became of closing a position by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// It is closed, at this.
    Closed(Vec<ClosingRow>),
    /// The application whose it is was asked to close it, now or before.
    Asked,
    /// Somebody else was first: the rows that stand.
    AlreadyClosed(Vec<ClosingRow>),
    /// There is no such position.
    Unknown,
    /// It has another version: this one.
    VersionChanged(i64),
    /// Its symbol has no quote that is fresh enough.
    NoFreshPrice(String),
    /// Others write it over and over: come again.
    Busy,
    /// The tables of the application whose it is do not let it close: why.
    Refused(String),
}

/// How often a closing is tried that others overtake.
const TRIES: usize = 5;

/// The last quote of an instrument, if something may be decided on it.
///
/// # Errors
/// [`Error`].
pub async fn fresh_quote(store: &Positions, instrument: &Instrument) -> Result<Option<Quote>> {
    let now_ms = store.now_ms().await?;
    let last = store.last_quote(&instrument.symbol).await?;
    Ok(last.filter(|quote| now_ms.saturating_sub(quote.ts_ms) <= instrument.max_quote_age_ms))
}

/// Says which level lies nearer to the price than the instrument allows.
///
/// # Errors
/// [`Error::Refused`] with `stop_too_close` or `target_too_close`.
pub fn check_distance(instrument: &Instrument, rules: &Rules, on: Option<Quote>) -> Result<()> {
    let least = instrument.min_stop_points;
    let Some(quote) = on.filter(|_| least > 0) else { return Ok(()) };
    let price = rules.side.y(quote.closing_price(rules.side));
    let distance = |level: i64| rules.side.y(level).saturating_sub(price);
    let why = |points: i64| format!("it lies {points} points from the price; {least} or more are allowed");
    if let Some(points) = rules.sl.map(|sl| distance(sl).saturating_neg()).filter(|points| *points < least) {
        return Err(Error::refused("sl", "stop_too_close", why(points)));
    }
    let targets = rules.tp.into_iter().chain(rules.legs.iter().map(|leg| leg.price));
    match targets.map(distance).filter(|points| *points < least).min() {
        Some(points) => Err(Error::refused("tp", "target_too_close", why(points))),
        None => Ok(()),
    }
}

/// The price at which a position of this side is opened now.
#[must_use]
pub const fn opening_price(quote: &Quote, side: Side) -> i64 {
    match side {
        Side::Long => quote.ask,
        Side::Short => quote.bid,
    }
}

/// Opens a position after its levels were held against the last quote, which triggers nothing of it.
///
/// # Errors
/// [`Error`]; refused when something about it cannot be.
pub async fn open(store: &Positions, instrument: &Instrument, new: NewPosition, actor: &str) -> Result<i64> {
    let on = match new.on {
        Some(quote) => Some(quote),
        None => store.last_quote(&instrument.symbol).await?,
    };
    check_distance(instrument, &new.rules, on)?;
    store.open(&NewPosition { on, ..new }, actor).await
}

/// Changes a position after its new levels were held against the last quote.
///
/// # Errors
/// As [`open`].
pub async fn change(store: &Positions, id: i64, change: &Change, actor: &str) -> Result<Option<Position>> {
    let Some(position) = store.get(id).await? else { return Ok(None) };
    let on = store.last_quote(&position.symbol).await?;
    if let Some(instrument) = store.instrument(&position.symbol).await? {
        // Only what is moved is held against the price: what stands was allowed when it was set.
        let moved = Rules {
            sl: change.sl.flatten(),
            tp: change.tp.flatten(),
            ..Rules::new(position.rules.side, position.rules.qty, position.rules.entry)
        };
        check_distance(&instrument, &moved, on)?;
    }
    store.change(id, change, on, actor).await
}

/// Closes a position at the last quote, if that is fresh; once, whoever else tries.
///
/// # Errors
/// [`Error`]. Then it is not known whether it is closed; asking again answers it.
pub async fn close(store: &Positions, id: i64, version: Option<i64>, reason: Reason, actor: &str) -> Result<Closing> {
    for _ in 0..TRIES {
        store.sync(Reach::These(&[id])).await?;
        let Some(position) = store.get(id).await? else { return Ok(Closing::Unknown) };
        if position.status == Status::Closed {
            return Ok(Closing::AlreadyClosed(store.closings(&[id]).await?));
        }
        if position.asked {
            return Ok(Closing::Asked);
        }
        if version.is_some_and(|version| version != position.version) {
            return Ok(Closing::VersionChanged(position.version));
        }
        let quote = match store.instrument(&position.symbol).await? {
            Some(instrument) => fresh_quote(store, &instrument).await?,
            None => None,
        };
        let Some(quote) = quote else { return Ok(Closing::NoFreshPrice(position.symbol)) };
        let price = quote.closing_price(position.rules.side);
        let fill = Fill { leg: 0, qty: position.open_qty, reason, level: None, price, ambiguous: false };
        let detail = json!({ "why": "asked", "reason": reason, "version": position.version }).to_string();
        let close = Close::new(id, position.version, quote, vec![fill], &position.rules, detail);
        let mut closed = store.close(&[close], None, store.now_ms().await?, actor, None).await?;
        match closed.outcomes.remove(&id) {
            Some(Outcome::Closed { .. }) => return Ok(Closing::Closed(store.closings(&[id]).await?)),
            Some(Outcome::AlreadyClosed { closings }) => return Ok(Closing::AlreadyClosed(closings)),
            Some(Outcome::Asked { .. }) => return Ok(Closing::Asked),
            Some(Outcome::Unknown) => return Ok(Closing::Unknown),
            Some(Outcome::Failed { why }) => return Ok(Closing::Refused(why)),
            // It changed between reading and writing: read it again.
            _ => {}
        }
    }
    Ok(Closing::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_too_near_to_the_price_are_named() {
        let instrument = Instrument { min_stop_points: 10, ..Instrument::new("A", 2) };
        let quote = Quote { ts_ms: 0, seq: 1, bid: 100, ask: 104 };
        let check = |side, sl, tp, expected: Option<&str>| {
            let rules = Rules { sl, tp, ..Rules::new(side, 1, 100) };
            let code = match check_distance(&instrument, &rules, Some(quote)) {
                Err(Error::Refused { code, .. }) => Some(code),
                _ => None,
            };
            assert_eq!(code, expected, "{side:?} {sl:?} {tp:?}");
        };
        check(Side::Long, Some(90), Some(110), None);
        check(Side::Long, Some(91), None, Some("stop_too_close"));
        check(Side::Long, Some(101), None, Some("stop_too_close"));
        check(Side::Long, None, Some(109), Some("target_too_close"));
        check(Side::Short, Some(114), Some(94), None);
        check(Side::Short, Some(113), None, Some("stop_too_close"));
        check(Side::Short, None, Some(95), Some("target_too_close"));
        let free = Instrument::new("A", 2);
        assert!(check_distance(&free, &Rules { sl: Some(101), ..Rules::new(Side::Long, 1, 100) }, Some(quote)).is_ok());
    }
}
