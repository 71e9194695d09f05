//! Rows of another application that its own database does not let close.

use windlass_market::desk::{self, Closing};
use windlass_market::engine::Engine;
use windlass_market::positions::{Instrument, Positions, Status};
use windlass_market::rules::{Reason, Side};

use super::{Broker, closed, quotes};
use crate::positions::{block_on, closed_now};
use crate::until;

/// Positions by number: 1 raises, 2 raises at the commit, 3 is left as it is by a trigger.
const RULES: &str = "
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.id = 1 THEN RAISE EXCEPTION 'the account has 12.34 only'; END IF;
  IF NEW.id = 3 THEN RETURN NULL; END IF;
  RETURN NEW; END $$;
CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.id = 2 THEN RAISE EXCEPTION 'no' USING ERRCODE = '23514', CONSTRAINT = 'books_balance'; END IF;
  RETURN NULL; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON trading_position FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE CONSTRAINT TRIGGER refuse_late AFTER UPDATE ON trading_position DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION refuse_late();
";

async fn opened(broker: &Broker, count: usize) -> Vec<i64> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(broker.open(Side::Long, 107_100, Some(107_000), None).await);
    }
    ids
}

async fn status(store: &Positions, id: i64) -> Status {
    store.get(id).await.unwrap().unwrap().status
}

#[test]
fn rows_that_their_database_refuses_do_not_stop_the_others_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        let store = broker.store().await;
        quotes(&store, 1, &[107_100]).await;
        let ids = opened(&broker, 6).await;
        assert_eq!(ids[..3], [1, 2, 3]);
        let (locked, good) = (ids[3], &ids[4..]);
        sqlx::raw_sql(RULES).execute(&broker.pool).await.unwrap();
        let mut other = broker.pool.begin().await.unwrap();
        let hold = "SELECT 1 FROM trading_position WHERE id = $1 FOR UPDATE";
        sqlx::query(hold).bind(locked).execute(&mut *other).await.unwrap();
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        quotes(&store, 2, &[106_990]).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.refused), (2, 4), "{report:?}");
        for id in good {
            assert_eq!(broker.row(*id).await, closed("1.06990000", "stop_loss"));
        }
        // Each is named with why, and none of their numbers is.
        let (count, named) = store.unmapped(10).await.unwrap();
        let why: Vec<&str> = named.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(count, 4, "{named:?}");
        for part in ["SQLSTATE P0001", "SQLSTATE 23514, constraint books_balance", "closes no row", "SQLSTATE 55P03"] {
            assert!(why.iter().any(|why| why.ends_with(part) || why.contains(part)), "{part}: {why:?}");
        }
        assert!(!why.iter().any(|why| why.contains("12.34")), "{why:?}");
        let history = store.history(1, 0, 10).await.unwrap();
        assert!(history.iter().any(|line| line.kind == "close_failed"), "{history:?}");
        let by_hand = desk::close(&store, 1, None, Reason::Manual, "test").await.unwrap();
        assert!(matches!(by_hand, Closing::Refused(_)), "{by_hand:?}");
        // What comes later closes, and the four are tried again: the free one closes where it was reached.
        let late = broker.open(Side::Short, 106_990, Some(107_200), None).await;
        engine.sweep().await.unwrap();
        other.rollback().await.unwrap();
        quotes(&store, 3, &[107_300]).await;
        assert_eq!(engine.sweep().await.unwrap().closings[0].position_id, late);
        until("it is tried again", async || {
            engine.sweep().await.unwrap();
            status(&store, locked).await == Status::Closed
        })
        .await;
        assert_eq!(broker.row(locked).await, closed("1.06990000", "stop_loss"));
        // Another worker finds what had triggered, and closes it with the next quote once it may.
        assert_eq!(status(&store, 1).await, Status::Closing);
        engine.release().await.unwrap();
        sqlx::raw_sql("DROP TRIGGER refuse ON trading_position; DROP TRIGGER refuse_late ON trading_position")
            .execute(&broker.pool)
            .await
            .unwrap();
        quotes(&store, 4, &[107_310]).await;
        let report = Engine::new(store.clone(), "b").sweep().await.unwrap();
        assert_eq!((report.closed, report.refused), (3, 0), "{report:?}");
        assert_eq!(broker.row(1).await, closed("1.07310000", "stop_loss"));
        store.close_pool().await;
    });
}

#[test]
fn a_stop_that_moves_before_the_session_takes_the_trigger_back_8_18_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        let store = broker.store().await;
        let at = |calendar: &str| Instrument { calendar: calendar.to_owned(), ..Instrument::new("EURUSD", 5) };
        store.put_instrument(&at(&closed_now(&store).await)).await.unwrap();
        quotes(&store, 1, &[107_100]).await;
        let ids = opened(&broker, 2).await;
        let (moved, grown) = (ids[0], ids[1]);
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        quotes(&store, 2, &[106_990]).await;
        assert_eq!(engine.sweep().await.unwrap().waiting, 2);
        broker.run("UPDATE trading_position SET stop_loss = 1.06, armed_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = $1", moved).await;
        broker
            .run("UPDATE trading_position SET volume = 0.20, updated_at = clock_timestamp() WHERE id = $1", grown)
            .await;
        engine.sweep().await.unwrap();
        let position = store.get(moved).await.unwrap().unwrap();
        assert_eq!((position.status, position.closing_reason), (Status::Open, None));
        assert_eq!(status(&store, grown).await, Status::Closing, "what triggered stands");
        store.put_instrument(&at("24x7")).await.unwrap();
        quotes(&store, 3, &[106_980]).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].position_id), (1, grown), "{report:?}");
        assert_eq!(broker.row(moved).await.status, "open");
        quotes(&store, 4, &[105_990]).await;
        assert_eq!(engine.sweep().await.unwrap().closings[0].position_id, moved);
        store.close_pool().await;
    });
}
