//! Each position closes once, and every guard stands where it is written.

use std::time::Duration;

use serde_json::json;
use windlass_market::positions::{
    Change, Class, Close, Error, Fence, Moved, NewPosition, Outcome, Page, Positions, Status,
};
use windlass_market::rules::{Distance, Fill, Leg, Reason, Rules, Trail};

use super::{decide, fence, long, on_both, open, quote};

async fn close(store: &Positions, close: &Close, fence: Option<Fence>) -> Outcome {
    let now = store.now_ms().await.unwrap();
    let mut closed = store.close(std::slice::from_ref(close), fence, now, "test", None).await.unwrap();
    closed.outcomes.remove(&close.id).unwrap()
}

/// Closings, outbox rows of closings, audit rows of closings.
async fn written(store: &Positions, id: i64) -> (usize, usize, usize) {
    let told = store.untold(1_000).await.unwrap();
    let history = store.history(id, 0, 1_000).await.unwrap();
    (
        store.closings(&[id]).await.unwrap().len(),
        told.iter().filter(|row| row.key.starts_with(&format!("close:{id}:"))).count(),
        history.iter().filter(|row| row.kind == "close").count(),
    )
}

#[test]
fn a_closing_is_whole_and_happens_once_8_12() {
    on_both(async |store: Positions| {
        let fence = fence(&store, "a").await;
        let position = open(&store, long()).await;
        let decision = decide(&position, quote(1, 85));
        assert_eq!(close(&store, &decision, Some(fence)).await, Outcome::Closed { version: 2, whole: true });
        assert_eq!(written(&store, position.id).await, (1, 1, 1));
        let row = &store.closings(&[position.id]).await.unwrap()[0];
        assert_eq!((row.fill, row.level, row.reason, row.pnl_points.as_str()), (85, Some(90), Reason::Sl, "-150"));
        assert_eq!((row.quote, row.fence, row.actor.as_str()), (quote(1, 85), Some(fence.token), "test"));
        let after = store.get(position.id).await.unwrap().unwrap();
        assert_eq!((after.status, after.open_qty, after.version), (Status::Closed, 0, 2));
        // R10: the loser gets the row that stands, and leaves a line.
        let again = close(&store, &decision, Some(fence)).await;
        assert!(matches!(again, Outcome::AlreadyClosed { closings } if closings[0] == *row));
        let history = store.history(position.id, 0, 10).await.unwrap();
        let kinds: Vec<&str> = history.iter().map(|row| row.kind.as_str()).collect();
        assert_eq!(kinds, ["open", "close", "lost_race"]);
        assert_eq!(written(&store, position.id).await, (1, 1, 1));
    });
}

#[test]
fn a_moved_stop_refuses_what_was_decided_before_8_10_8_11() {
    on_both(async |store: Positions| {
        let fence = fence(&store, "a").await;
        let position = open(&store, long()).await;
        let decision = decide(&position, quote(1, 85));
        let change = Change { sl: Some(Some(50)), ..Change::default() };
        let moved = store.change(position.id, &change, Some(quote(1, 85)), "user").await.unwrap().unwrap();
        assert_eq!((moved.rules.sl, moved.version, moved.armed), (Some(50), 2, quote(1, 85).place()));
        assert_eq!(close(&store, &decision, Some(fence)).await, Outcome::VersionChanged);
        assert_eq!(written(&store, position.id).await, (0, 0, 0));
        assert_eq!(
            close(&store, &decide(&moved, quote(2, 50)), Some(fence)).await,
            Outcome::Closed { version: 3, whole: true }
        );
        let late = store.change(position.id, &change, None, "user").await.unwrap_err();
        assert!(matches!(late, Error::Refused { code: "already_closed", .. }), "{late}");
    });
}

#[test]
fn a_worker_that_lost_its_shard_writes_nothing_8_10() {
    on_both(async |store: Positions| {
        let old = store.lease(0, "paused", Duration::from_millis(1)).await.unwrap().unwrap();
        let position = open(&store, long()).await;
        let decision = decide(&position, quote(1, 85));
        let new = loop {
            // Another owner gets it once the lease is over, and no earlier.
            if let Some(lease) = store.lease(0, "other", Duration::from_secs(60)).await.unwrap() {
                break lease;
            }
        };
        assert!(new.now_ms >= old.expires_at_ms, "{new:?} after {old:?}");
        assert_eq!(new.token, old.token + 1);
        assert_eq!(store.lease(0, "paused", Duration::from_secs(1)).await.unwrap(), None);
        assert_eq!(close(&store, &decision, Some(Fence::from(&old))).await, Outcome::FenceLost);
        assert_eq!(written(&store, position.id).await, (0, 0, 0));
        let kept = store.lease(0, "other", Duration::from_secs(60)).await.unwrap().unwrap();
        assert_eq!(kept.token, new.token, "renewing keeps the token");
        assert_eq!(
            close(&store, &decision, Some(Fence::from(&new))).await,
            Outcome::Closed { version: 2, whole: true }
        );
        store.release(&new).await.unwrap();
        assert_eq!(store.lease(0, "paused", Duration::from_secs(1)).await.unwrap().unwrap().token, new.token + 1);
    });
}

#[test]
fn an_old_decision_closes_nothing_8_10_f43() {
    on_both(async |store: Positions| {
        let position = open(&store, long()).await;
        let decision = decide(&position, quote(1, 85));
        let old = store.now_ms().await.unwrap() - 2_000;
        let closed = store.close(std::slice::from_ref(&decision), None, old, "test", None).await.unwrap();
        assert_eq!(closed.outcomes[&position.id], Outcome::TooOld);
        assert_eq!(written(&store, position.id).await, (0, 0, 0));
        assert!(matches!(close(&store, &decision, None).await, Outcome::Closed { .. }), "decided anew, it closes");
        assert_eq!(close(&store, &Close { id: 999_999, ..decision }, None).await, Outcome::Unknown);
    });
}

#[test]
fn legs_close_in_parts_and_replayed_legs_do_nothing_8_8() {
    on_both(async |store: Positions| {
        let leg = |leg, price, qty| Leg { leg, price, qty };
        let rules = Rules { tp: None, legs: [leg(1, 105, 3), leg(2, 108, 7)].into(), ..long() };
        let position = open(&store, rules).await;
        assert_eq!(position.rules.legs.len(), 2);
        let first = decide(&position, quote(1, 106));
        assert_eq!(close(&store, &first, None).await, Outcome::Closed { version: 2, whole: false });
        assert_eq!(close(&store, &first, None).await, Outcome::VersionChanged);
        let forged = Close { version: 2, ..first.clone() };
        assert_eq!(close(&store, &forged, None).await, Outcome::Busy, "a leg closes once, whatever the version says");
        let position = store.get(position.id).await.unwrap().unwrap();
        assert_eq!((position.open_qty, position.legs_done, position.status), (7, 0b10, Status::Open));
        let last = decide(&position, quote(2, 120));
        assert_eq!(close(&store, &last, None).await, Outcome::Closed { version: 3, whole: true });
        let rows = store.closings(&[position.id]).await.unwrap();
        let told: Vec<_> = rows.iter().map(|row| (row.leg, row.qty, row.fill, row.pnl_points.as_str())).collect();
        assert_eq!(told, [(1, 3, 106, "18"), (2, 7, 120, "140")]);
        assert_eq!(written(&store, position.id).await, (2, 2, 2));
    });
}

#[test]
fn both_parts_of_one_quote_are_written_together() {
    on_both(async |store: Positions| {
        let rules = Rules { legs: [Leg { leg: 4, price: 105, qty: 4 }].into(), ..long() };
        let position = open(&store, rules).await;
        let decision = decide(&position, quote(1, 111));
        assert_eq!(decision.fills.len(), 2);
        assert_eq!(close(&store, &decision, None).await, Outcome::Closed { version: 2, whole: true });
        assert_eq!(written(&store, position.id).await, (2, 2, 1));
    });
}

#[test]
fn history_cannot_be_changed_8_29() {
    super::block_on(async {
        let server = windlass_testkit::shared_postgres();
        let url = server.database();
        let store = Positions::postgres(&url, &Default::default()).await.unwrap();
        super::prepare(&store).await;
        open(&store, long()).await;
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        for forge in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
            let error = sqlx::query(forge).execute(&pool).await.unwrap_err();
            assert!(error.to_string().contains("append-only"), "{forge}: {error}");
        }
        store.close_pool().await;
    });
}

#[test]
fn checkpoints_raise_no_version_and_never_go_back_8_7() {
    on_both(async |store: Positions| {
        let trail = Trail { distance: Distance::Points(5), activation: None, step: 1 };
        let position = open(&store, Rules { tp: None, trail: Some(trail), ..long() }).await;
        let moved = |seq, extreme: i64| Moved {
            id: position.id,
            version: 1,
            extreme: Some(extreme),
            stop: (extreme - 5, Reason::Trail),
            seq,
        };
        store.checkpoint(&[moved(5, 130), Moved { id: 77, ..moved(5, 1) }]).await.unwrap();
        store.checkpoint(&[moved(4, 120)]).await.unwrap();
        store.checkpoint(&[Moved { version: 9, ..moved(6, 140) }]).await.unwrap();
        let after = store.get(position.id).await.unwrap().unwrap();
        assert_eq!((after.version, after.extreme, after.stop), (1, Some(130), Some((125, Reason::Trail))));
        // After a kill -9 the stop stands where it was.
        let fills: Vec<Fill> = decide(&after, quote(7, 125)).fills;
        assert_eq!((fills[0].reason, fills[0].price), (Reason::Trail, 125));
    });
}

#[test]
fn what_cannot_be_is_refused_by_field_and_nothing_is_written() {
    on_both(async |store: Positions| {
        let new = |id, rules| NewPosition { id, account_id: 1, symbol: "EURUSD".to_owned(), rules, on: None };
        let first = store.open(&new(Some(7), long()), "test").await.unwrap();
        assert_eq!(first, 7);
        let refused = |error: Error, expected: &str| {
            assert!(matches!(&error, Error::Refused { code, .. } if *code == expected), "{error:?}");
            assert_eq!(error.class(), Class::Refused);
        };
        refused(store.open(&new(Some(7), long()), "test").await.unwrap_err(), "exists");
        refused(
            store.open(&new(None, Rules { tp: Some(80), ..long() }), "test").await.unwrap_err(),
            "target_behind_stop",
        );
        let change = |change: serde_json::Value| serde_json::from_value::<Change>(change).unwrap();
        let wrong = store.change(7, &change(json!({ "tp": 90 })), None, "test").await.unwrap_err();
        refused(wrong, "target_behind_stop");
        let wrong = store.change(7, &change(json!({ "tp": 120, "version": 9 })), None, "test").await.unwrap_err();
        refused(wrong, "version_changed");
        assert_eq!(store.change(8, &change(json!({ "tp": 120 })), None, "test").await.unwrap(), None);
        let moved = store.change(7, &change(json!({ "tp": null })), None, "test").await.unwrap().unwrap();
        assert_eq!((moved.rules.tp, moved.rules.sl), (None, Some(90)), "absent is kept, null is none");
        let page = Page { symbol: Some("EURUSD".to_owned()), account_id: Some(1), limit: 10, ..Page::default() };
        assert_eq!(store.list(&page).await.unwrap().len(), 1);
        assert_eq!(store.count_open().await.unwrap(), 1);
        let wrong = store.put_instrument(&windlass_market::positions::Instrument::new("A B", 5)).await.unwrap_err();
        refused(wrong, "out_of_range");
    });
}

#[test]
fn a_guaranteed_stop_may_not_be_loosened() {
    on_both(async |store: Positions| {
        let position = open(&store, Rules { guaranteed: true, ..long() }).await;
        let to = |sl| Change { sl: Some(sl), ..Change::default() };
        for sl in [Some(89), None] {
            let error = store.change(position.id, &to(sl), None, "user").await.unwrap_err();
            assert!(matches!(error, Error::Refused { code: "guaranteed_stop_loosened", .. }), "{error}");
        }
        assert!(store.change(position.id, &to(Some(95)), None, "user").await.unwrap().is_some());
    });
}
