//! Workers as processes, racing over the same triggered positions and killed at random.

use std::time::{Duration, Instant};

use windlass_market::positions::{Options, Page, Positions};
use windlass_market::rules::{Quote, Rules, Side};
use windlass_testkit::PostgresServer;

use super::{block_on, decide, open, prepare};
use crate::workers::Workers;

/// Names the database to a process that is one of the workers.
const URL: &str = "WINDLASS_RACE_URL";
/// The quote that triggers them all.
const TRIGGER: Quote = Quote { ts_ms: 2_000, seq: 2, bid: 85, ask: 87 };

/// Positions raced over: 500, or `WINDLASS_SOAK_CLOSINGS`.
fn positions() -> usize {
    std::env::var("WINDLASS_SOAK_CLOSINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
}

/// Closes what is open until nothing is, in random batches, without any lease: the guards in the
/// statement are all there is.
async fn close_all(store: &Positions) {
    let mut random = fastrand::Rng::new();
    loop {
        let page = Page { symbol: Some("EURUSD".to_owned()), limit: 20_000, ..Page::default() };
        let mut open = store.list(&page).await.unwrap();
        if open.is_empty() {
            return;
        }
        random.shuffle(&mut open);
        open.truncate(random.usize(1..40));
        let batch: Vec<_> = open.iter().map(|position| decide(position, TRIGGER)).collect();
        let now = store.now_ms().await.unwrap();
        store.close(&batch, None, now, "race", None).await.unwrap();
    }
}

/// Alone it closes everything; with [`URL`] it is one of many, and may be killed.
#[test]
fn a_worker_alone_closes_everything() {
    block_on(async {
        if let Ok(url) = std::env::var(URL) {
            let options = Options { connections: 1, ..Options::default() };
            close_all(&Positions::postgres_lazy(&url, &options).unwrap()).await;
            return;
        }
        let home = super::on_sqlite().await;
        prepare(&home.store).await;
        for _ in 0..50 {
            open(&home.store, Rules { sl: Some(90), ..Rules::new(Side::Long, 10, 100) }).await;
        }
        close_all(&home.store).await;
        assert_eq!(home.store.count_open().await.unwrap(), 0);
    });
}

/// Eight workers, killed and replaced at random: as many closings and outbox rows as positions.
#[test]
fn eight_workers_killed_at_random_close_each_position_once_8_9_f42() {
    let total = positions();
    let server = PostgresServer::start(&[("fsync", "off")]);
    let url = server.database();
    block_on(async {
        let store = Positions::postgres(&url, &Options::default()).await.unwrap();
        prepare(&store).await;
        for _ in 0..total {
            open(&store, Rules { sl: Some(90), ..Rules::new(Side::Long, 10, 100) }).await;
        }
        store.close_pool().await;
    });
    let mut random = fastrand::Rng::new();
    let mut workers = Workers::start(8, "positions::race::a_worker_alone_closes_everything", URL, &url);
    let begun = Instant::now();
    // The last kills fall among the last closings; what is left is closed by those that live.
    while workers.are_at_work() {
        assert!(begun.elapsed() < Duration::from_secs(600), "the race comes to an end");
        std::thread::sleep(Duration::from_millis(random.u64(5..60)));
        workers.kill_one(total / 10);
    }
    assert!(workers.kills() > 0, "somebody was killed");
    block_on(async {
        let store = Positions::postgres(&url, &Options::default()).await.unwrap();
        assert_eq!(store.count_open().await.unwrap(), 0, "no position is left beyond its stop");
        let closings = store.closed_since(0, 1_000_000).await.unwrap();
        let told = store.untold(1_000_000).await.unwrap();
        let closed = told.iter().filter(|row| row.topic == "position.closed").count();
        assert_eq!((closings.len(), closed), (total, total));
        let mut ids: Vec<i64> = closings.iter().map(|row| row.position_id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), total, "no duplicate");
        store.close_pool().await;
    });
}
