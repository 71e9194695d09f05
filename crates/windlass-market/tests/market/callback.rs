//! §8.26: closings that another application's own code carries out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use windlass_jobs::{JobId, NewJob, Queue};
use windlass_market::callback::{CloseJobs, Fate, Relay, Relayed};
use windlass_market::desk::{self, Closing};
use windlass_market::engine::Engine;
use windlass_market::explain::explain;
use windlass_market::positions::{Callback, Instrument, Mapping, Options, Positions, Reach, Status, Waiting};
use windlass_market::prices::PriceOptions;
use windlass_market::rules::{Reason, Side};
use windlass_market::{Market, Where};

use crate::mapped::{Broker, mapping, quotes};
use crate::positions::block_on;
use crate::until;

/// Jobs as a queue keeps them, and what the test lets become of them.
#[derive(Default)]
struct Shelf(Mutex<HashMap<String, (NewJob, Fate)>>, Mutex<Option<String>>);

impl Shelf {
    fn jobs(&self) -> std::sync::MutexGuard<'_, HashMap<String, (NewJob, Fate)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every job becomes from now on.
    fn end(&self, fate: &Fate) {
        self.jobs().values_mut().for_each(|(_, own)| *own = fate.clone());
    }

    /// The args of the jobs, by key.
    fn payloads(&self) -> Vec<Value> {
        let mut all: Vec<Value> =
            self.jobs().values().map(|(job, _)| serde_json::from_str(job.args.get()).unwrap()).collect();
        all.sort_by_key(|payload| payload["key"].to_string());
        all
    }
}

#[async_trait]
impl CloseJobs for Shelf {
    async fn enqueue(&self, queue: &Queue, job: NewJob) -> Result<(), String> {
        if self.1.lock().unwrap().as_ref().is_some_and(|key| job.args.get().contains(key)) {
            return Err("the queue has no room for it".to_owned());
        }
        let id = JobId::new(job.ulid, queue.clone()).to_string();
        self.jobs().entry(id).or_insert((job, Fate::Open));
        Ok(())
    }

    async fn fate(&self, id: &JobId) -> Result<Fate, String> {
        Ok(self.jobs().get(&id.to_string()).map_or(Fate::Unknown, |(_, fate)| fate.clone()))
    }
}

fn callback() -> Callback {
    serde_json::from_value(json!({ "close": "broker.close_position", "queue": "broker", "attempts": 3 })).unwrap()
}

/// A desk whose positions are closed by their application's code.
async fn store(broker: &Broker) -> Positions {
    let mapping = Mapping { close: None, callback: Some(callback()), ..mapping() };
    let store = Positions::mapped(&broker.url, &Options::default(), &mapping).await.unwrap();
    store.put_instrument(&Instrument::new("EURUSD", 5)).await.unwrap();
    store
}

async fn pass(store: &Positions, shelf: &Shelf) -> Relayed {
    Relay::default().pass(store, shelf, &callback(), true).await
}

/// A position that was asked for, with its engine and its job.
async fn asked(broker: &Broker) -> (Positions, Engine, Shelf, i64) {
    let store = store(broker).await;
    quotes(&store, 1, &[107_100]).await;
    let id = broker.open(Side::Long, 107_100, Some(107_000), None).await;
    let mut engine = Engine::new(store.clone(), "a");
    engine.sweep().await.unwrap();
    quotes(&store, 2, &[106_990]).await;
    let report = engine.sweep().await.unwrap();
    assert_eq!((report.triggered, report.asked, report.closed), (1, 1, 0));
    let shelf = Shelf::default();
    assert_eq!(pass(&store, &shelf).await, Relayed { enqueued: 1, ..Relayed::default() });
    (store, engine, shelf, id)
}

#[test]
fn a_closing_is_asked_for_under_one_key_and_written_when_it_is_answered_8_26() {
    block_on(async {
        let broker = Broker::new().await;
        let (store, mut engine, shelf, id) = asked(&broker).await;
        let payloads = shelf.payloads();
        let payload = &payloads[0];
        assert_eq!(payload["key"], format!("close:{id}:0"));
        assert_eq!(
            (&payload["position_id"], &payload["reason"], &payload["qty"]),
            (&json!(id), &json!("SL"), &json!(10))
        );
        // Whoever sees jobs sees no number of the account: those stand in the tables, by the key.
        assert!(!payload.to_string().contains("1.069") && payload.get("quote").is_none(), "{payload}");
        let sql = "SELECT price::text, ask::text, version FROM windlass.asked_closings WHERE key = $1";
        let told: (String, String, String) =
            sqlx::query_as(sql).bind(format!("close:{id}:0")).fetch_one(&broker.pool).await.unwrap();
        assert_eq!((told.0.as_str(), told.1.as_str()), ("1.06990", "1.06992"));
        let asked = store.asked_by_key(&format!("close:{id}:0")).await.unwrap().unwrap().payload();
        assert_eq!(
            (&asked["price"], &asked["quote"]["ask"], &asked["version"]),
            (&json!(told.0), &json!(told.1), &json!(told.2))
        );
        let version: String = sqlx::query_scalar("SELECT to_jsonb(updated_at) #>> '{}' FROM trading_position")
            .fetch_one(&broker.pool)
            .await
            .unwrap();
        assert_eq!(payload["version"], version, "as it stands in their row");
        // Until there is an answer nothing closes, and nothing is asked twice: by nobody.
        quotes(&store, 3, &[106_000, 107_100]).await;
        assert_eq!(engine.sweep().await.unwrap().triggered, 0);
        assert_eq!(Engine::new(store.clone(), "a").sweep().await.unwrap().triggered, 0);
        assert!(matches!(desk::close(&store, id, None, Reason::Manual, "test").await, Ok(Closing::Asked)));
        assert_eq!(pass(&store, &shelf).await, Relayed::default());
        let position = store.get(id).await.unwrap().unwrap();
        assert_eq!(
            (position.status, position.asked, store.closings(&[id]).await.unwrap().len()),
            (Status::Closing, true, 0)
        );
        // Their row is touched while it is being closed; the copy waits for the answer.
        broker
            .run("UPDATE trading_position SET status = 'closed', updated_at = clock_timestamp() WHERE id = $1", id)
            .await;
        store.sync(Reach::Whole).await.unwrap();
        assert_eq!(store.get(id).await.unwrap().unwrap().status, Status::Closing);
        shelf.end(&Fate::Done(json!({ "outcome": "closed", "ticket": 99 })));
        assert_eq!(pass(&store, &shelf).await, Relayed { answered: 1, ..Relayed::default() });
        assert_eq!(pass(&store, &shelf).await, Relayed::default());
        let closings = store.closings(&[id]).await.unwrap();
        assert_eq!((closings.len(), closings[0].fill, closings[0].reason), (1, 106_990, Reason::Sl));
        assert_eq!(explain(&store, id).await.unwrap()[0].agrees, Some(true));
        let history = store.history(id, 0, 10).await.unwrap();
        assert!(
            history.iter().any(|line| line.kind == "close" && line.detail.contains("\"ticket\": 99")),
            "{history:?}"
        );
        assert_eq!(store.get(id).await.unwrap().unwrap().status, Status::Closed);
        let told = store.untold(10).await.unwrap();
        assert_eq!(told.iter().filter(|row| row.topic == "position.closed").count(), 1);
        assert_eq!(shelf.payloads().len(), 1, "one key, seen once");
        store.close_pool().await;
    });
}

/// A relay that died after it enqueued, or a queue that lost its jobs: the same id again.
#[test]
fn a_job_that_is_lost_is_asked_for_under_its_own_id_8_26() {
    block_on(async {
        let broker = Broker::new().await;
        let (store, _engine, shelf, _) = asked(&broker).await;
        let emptied = Shelf::default();
        assert_eq!(pass(&store, &emptied).await.enqueued, 1);
        let ids = |shelf: &Shelf| shelf.jobs().keys().cloned().collect::<Vec<_>>();
        assert_eq!(ids(&shelf), ids(&emptied));
        store.close_pool().await;
    });
}

/// Time-outs end in the dead set: the position stays closing, and is counted; nothing closes it a second time.
#[test]
fn what_is_never_answered_stays_closing_and_is_counted_8_26() {
    block_on(async {
        let broker = Broker::new().await;
        let (store, mut engine, shelf, id) = asked(&broker).await;
        shelf.end(&Fate::Dead("timeout".to_owned()));
        assert_eq!(pass(&store, &shelf).await, Relayed { failed: 1, ..Relayed::default() });
        assert_eq!(pass(&store, &shelf).await, Relayed::default(), "said once");
        let count = store.asked_count().await.unwrap();
        assert_eq!((count.asked, count.failed), (0, 1));
        let failed = store.asked(Waiting::Failed, None, 10).await.unwrap();
        assert_eq!(failed[0].error.as_deref(), Some("timeout"));
        quotes(&store, 3, &[106_000]).await;
        assert_eq!(engine.sweep().await.unwrap().triggered, 0);
        // Taken out of the dead set by a person, it succeeds after all.
        shelf.end(&Fate::Done(json!("closed")));
        assert_eq!(pass(&store, &shelf).await.answered, 1);
        assert_eq!((store.closings(&[id]).await.unwrap().len(), store.asked_count().await.unwrap().failed), (1, 0));
        store.close_pool().await;
    });
}

#[test]
fn what_was_closed_elsewhere_or_by_hand_has_no_closing_of_ours_8_26() {
    block_on(async {
        let broker = Broker::new().await;
        let (store, _engine, shelf, id) = asked(&broker).await;
        shelf.end(&Fate::Done(json!({ "outcome": "already_closed" })));
        assert_eq!(pass(&store, &shelf).await.answered, 1);
        assert_eq!(
            (store.get(id).await.unwrap().unwrap().status, store.closings(&[id]).await.unwrap().len()),
            (Status::Closed, 0)
        );
        store.close_pool().await;

        // An answer that says nothing is none; then somebody closes the position in the application.
        let broker = Broker::new().await;
        let (store, _engine, shelf, id) = asked(&broker).await;
        shelf.end(&Fate::Done(json!({ "status": "ok" })));
        assert_eq!(pass(&store, &shelf).await.failed, 1);
        store.sync(Reach::Whole).await.unwrap();
        assert_eq!(store.asked_count().await.unwrap().failed, 1, "still open there");
        broker
            .run("UPDATE trading_position SET status = 'closed', updated_at = clock_timestamp() WHERE id = $1", id)
            .await;
        store.sync(Reach::Whole).await.unwrap();
        assert_eq!(
            (store.asked_count().await.unwrap().failed, store.get(id).await.unwrap().unwrap().status),
            (0, Status::Closed)
        );
        store.close_pool().await;
    });
}

/// It gave up waiting and its row was found gone: the answer that comes then is written all the same.
#[test]
fn an_answer_after_its_row_is_gone_is_written_8_26() {
    block_on(async {
        let broker = Broker::new().await;
        let (store, _engine, shelf, id) = asked(&broker).await;
        shelf.end(&Fate::Dead("timeout".to_owned()));
        assert_eq!(pass(&store, &shelf).await.failed, 1);
        broker
            .run("UPDATE trading_position SET status = 'closed', updated_at = clock_timestamp() WHERE id = $1", id)
            .await;
        store.sync(Reach::Whole).await.unwrap();
        assert_eq!((store.asked_count().await.unwrap().failed, store.closings(&[id]).await.unwrap().len()), (0, 0));
        shelf.end(&Fate::Done(json!("closed")));
        assert_eq!(pass(&store, &shelf).await, Relayed { answered: 1, ..Relayed::default() });
        assert_eq!(pass(&store, &shelf).await, Relayed::default());
        let closings = store.closings(&[id]).await.unwrap();
        assert_eq!((closings.len(), closings[0].fill, closings[0].reason), (1, 106_990, Reason::Sl));
        let told = store.untold(10).await.unwrap();
        assert_eq!(told.iter().filter(|row| row.topic == "position.closed").count(), 1);
        store.close_pool().await;
    });
}

/// Who relays counts what has failed, nobody else; and gives the lease back at the end.
#[test]
fn what_failed_is_told_by_who_holds_the_lease_8_26() {
    block_on(async {
        let broker = Broker::new().await;
        let (store, engine, shelf, _) = asked(&broker).await;
        drop(engine);
        shelf.end(&Fate::Dead("timeout".to_owned()));
        let mapping = Mapping { close: None, callback: Some(callback()), ..mapping() };
        let at = Where::Mapped(broker.url.clone(), Box::new(mapping));
        let market = Market::new(at, "relay", None, PriceOptions::default());
        let watcher = market.watch_with(Some(Arc::new(shelf)));
        let failed = async |count: u64| {
            until("what has failed is counted", async || market.counters().asked_failed == count).await;
        };
        failed(1).await;
        let take =
            "UPDATE windlass.shard_lease SET owner = 'other', token = token + 1, expires_at_ms = $1 WHERE shard = 4";
        sqlx::query(take).bind(i64::MAX).execute(&broker.pool).await.unwrap();
        failed(0).await;
        sqlx::query(take).bind(0_i64).execute(&broker.pool).await.unwrap();
        failed(1).await;
        watcher.stop().await;
        assert!(store.lease(4, "next", Duration::from_secs(1)).await.unwrap().is_some());
        store.close_pool().await;
    });
}

/// Many that wait for an answer, and one that the queue does not take, stand in nobody's way.
#[test]
fn what_waits_longer_does_not_hold_the_others_up_8_26() {
    const ALL: usize = 1_100;
    block_on(async {
        let broker = Broker::new().await;
        let store = store(&broker).await;
        quotes(&store, 1, &[107_100]).await;
        let sql = "INSERT INTO trading_position(account_id, instrument_id, direction, volume, open_price, stop_loss)
                   SELECT 1, 1, 'BUY', 0.1, 1.071, 1.07 FROM generate_series(1, $1)";
        sqlx::query(sql).bind(ALL as i32).execute(&broker.pool).await.unwrap();
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        quotes(&store, 2, &[106_990]).await;
        assert_eq!(engine.sweep().await.unwrap().asked, ALL as u64);
        let first = store.asked(Waiting::New, None, 1).await.unwrap()[0].key();
        let shelf = Shelf::default();
        *shelf.1.lock().unwrap() = Some(format!("\"{first}\""));
        let mut relay = Relay::default();
        let done = relay.pass(&store, &shelf, &callback(), false).await;
        assert_eq!((done.enqueued, done.trouble.as_deref()), (ALL as u64 - 1, Some("the queue has no room for it")));
        // One of the newest is answered.
        let (id, key) = {
            let mut jobs = shelf.jobs();
            let (job, fate) = jobs.values_mut().max_by_key(|(job, _)| job.ulid).unwrap();
            *fate = Fate::Done(json!("closed"));
            let args: Value = serde_json::from_str(job.args.get()).unwrap();
            (args["position_id"].as_i64().unwrap(), args["key"].clone())
        };
        let mut answered = 0;
        for _ in 0..ALL.div_ceil(500) {
            answered += relay.pass(&store, &shelf, &callback(), false).await.answered;
        }
        assert_eq!((answered, store.closings(&[id]).await.unwrap().len()), (1, 1), "{key}");
        *shelf.1.lock().unwrap() = None;
        assert_eq!(relay.pass(&store, &shelf, &callback(), false).await.enqueued, 1, "the first one, at last");
        store.close_pool().await;
    });
}
