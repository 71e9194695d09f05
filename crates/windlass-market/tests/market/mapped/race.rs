//! Workers as processes over the rows of another application, killed at random, while that
//! application closes some itself.

use std::time::{Duration, Instant};

use windlass_market::positions::{Options, Page, Positions, Reach};
use windlass_market::rules::{Quote, Side};
use windlass_testkit::PostgresServer;

use super::{Broker, mapping};
use crate::positions::{block_on, decide};
use crate::workers::Workers;

/// Names the database to a process that is one of the workers.
const URL: &str = "WINDLASS_MAPPED_RACE_URL";
const POSITIONS: i64 = 200;
const WORKERS: usize = 4;
/// The application closes every so manieth itself.
const OWN: i64 = 10;

/// Closes what is open until nothing is, in random batches, without any lease.
#[test]
fn a_worker_closes_what_is_open() {
    let Ok(url) = std::env::var(URL) else { return };
    block_on(async {
        let options = Options { connections: 2, ..Options::default() };
        let store = Positions::mapped(&url, &options, &mapping()).await.unwrap();
        let mut random = fastrand::Rng::new();
        loop {
            let page = Page { symbol: Some("EURUSD".to_owned()), limit: 20_000, ..Page::default() };
            let mut open = store.list(&page).await.unwrap();
            if open.is_empty() {
                return;
            }
            random.shuffle(&mut open);
            open.truncate(random.usize(1..30));
            let now = store.now_ms().await.unwrap();
            let trigger = Quote { ts_ms: now + 1, seq: 2, bid: 106_000, ask: 106_002 };
            let batch: Vec<_> = open.iter().map(|position| decide(position, trigger)).collect();
            store.close(&batch, None, now, "race", None).await.unwrap();
        }
    });
}

#[test]
fn killed_workers_close_each_of_their_rows_once_8_25_8_9() {
    let server = PostgresServer::start(&[("fsync", "off")]);
    let url = server.database();
    block_on(async {
        let broker = Broker::at(url.clone(), None).await;
        let store = broker.store().await;
        for _ in 0..POSITIONS {
            broker.open(Side::Long, 107_100, Some(107_000), None).await;
        }
        store.sync(Reach::Whole).await.unwrap();
        let mut random = fastrand::Rng::new();
        let mut workers = Workers::start(WORKERS, "mapped::race::a_worker_closes_what_is_open", URL, &url);
        let (begun, mut own, mut next) = (Instant::now(), 0, OWN);
        while workers.are_at_work() {
            assert!(begun.elapsed() < Duration::from_secs(120), "the race comes to an end");
            tokio::time::sleep(Duration::from_millis(random.u64(2..30))).await;
            if next <= POSITIONS {
                let sql = "UPDATE trading_position SET status = 'closed', close_reason = 'desk', updated_at = clock_timestamp()
                           WHERE id = $1 AND status = 'open'";
                own += sqlx::query(sql).bind(next).execute(&broker.pool).await.unwrap().rows_affected();
                next += OWN;
            }
            workers.kill_one(10);
        }
        assert!(workers.kills() > 0, "somebody was killed");
        let closings = store.closed_since(0, 1_000_000).await.unwrap();
        let told = store.untold(1_000_000).await.unwrap();
        let events = told.iter().filter(|row| row.topic == "position.closed").count();
        let by_us: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM trading_position WHERE close_reason = 'stop_loss' AND status = 'closed'",
        )
        .fetch_one(&broker.pool)
        .await
        .unwrap();
        let all = usize::try_from(POSITIONS).unwrap();
        let own = usize::try_from(own).unwrap();
        assert_eq!(
            (closings.len(), events, usize::try_from(by_us).unwrap()),
            (all - own, all - own, all - own),
            "{own} by them"
        );
        let mut ids: Vec<i64> = closings.iter().map(|row| row.position_id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), store.count_open().await.unwrap()), (all - own, 0), "each once, none left");
        store.close_pool().await;
    });
}
