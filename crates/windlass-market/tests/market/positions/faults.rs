//! PostgreSQL stopped, cut off, slow and contended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use windlass_market::positions::{Class, Options, Outcome, Positions, Status};
use windlass_testkit::PostgresServer;

use super::{block_on, decide, fence, long, on_postgres, open, prepare, quote};

/// Stops in the middle of closings, 100 in the long form. `WINDLASS_SOAK_STOPS`.
fn stops() -> u32 {
    std::env::var("WINDLASS_SOAK_STOPS").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

/// An immediate stop in the middle of closings, again and again: each position is open or
/// closed and never half, has one closing row at most, and closes in the end.
#[test]
fn an_immediate_stop_in_the_middle_of_a_closing_leaves_nothing_half_done_f39_8_14() {
    block_on(async {
        let server = Arc::new(PostgresServer::start(&[]));
        let url = server.database();
        let store =
            Positions::postgres(&url, &Options { acquire_timeout: Duration::from_secs(1), ..Options::default() })
                .await
                .unwrap();
        prepare(&store).await;
        let lease = fence(&store, "a").await;
        let mut ids = Vec::new();
        for round in 0..stops() {
            let mut positions = Vec::new();
            for _ in 0..20 {
                positions.push(open(&store, long()).await);
            }
            ids.extend(positions.iter().map(|position| position.id));
            let now = store.now_ms().await.unwrap();
            let closer = {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut unknown = 0;
                    for position in &positions {
                        let decision = decide(position, quote(1, 85));
                        let now = store.now_ms().await.unwrap_or(now);
                        if let Err(error) = store.close(&[decision], Some(lease), now, "test", None).await {
                            assert_eq!(error.class(), Class::Retryable, "{error:?}");
                            unknown += 1;
                        }
                    }
                    unknown
                })
            };
            tokio::time::sleep(Duration::from_millis(u64::from(3 + round * 7 % 40))).await;
            let stopping = Arc::clone(&server);
            tokio::task::spawn_blocking(move || stopping.restart()).await.unwrap();
            closer.await.unwrap();
            settle(&store).await;
            for id in &ids {
                let position = store.get(*id).await.unwrap().unwrap();
                let rows = store.closings(&[*id]).await.unwrap();
                match position.status {
                    Status::Closed => assert_eq!((rows.len(), position.open_qty, rows[0].qty), (1, 0, 10)),
                    _ => assert_eq!((rows.len(), position.open_qty), (0, 10)),
                }
            }
        }
        // What was not written is decided again, and closes.
        for id in &ids {
            let position = store.get(*id).await.unwrap().unwrap();
            if position.status == Status::Open {
                let now = store.now_ms().await.unwrap();
                let closed =
                    store.close(&[decide(&position, quote(2, 84))], Some(lease), now, "test", None).await.unwrap();
                assert!(matches!(closed.outcomes[id], Outcome::Closed { .. }));
            }
        }
        let told = store.untold(100_000).await.unwrap();
        let closed = told.iter().filter(|row| row.topic == "position.closed").count();
        assert_eq!((closed, store.closings(&ids).await.unwrap().len()), (ids.len(), ids.len()));
        store.close_pool().await;
    });
}

/// Waits until the server answers again.
async fn settle(store: &Positions) {
    let answers = async { while store.now_ms().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), answers).await.expect("the sweep goes on within 10 s");
}

/// The answer to the commit is lost: asked again, the closing is found and nothing is written twice.
#[test]
fn a_lost_answer_to_the_commit_is_found_out_by_asking_again_f40() {
    block_on(async {
        let home = on_postgres().await;
        let store = &home.store;
        prepare(store).await;
        let lease = fence(store, "a").await;
        let position = open(store, long()).await;
        let decision = decide(&position, quote(1, 85));
        let now = store.now_ms().await.unwrap();
        // The future is dropped at random points of its way, as a cut connection would end it.
        for wait_us in (0..60).map(|n| n * 150) {
            let closing = store.close(std::slice::from_ref(&decision), Some(lease), now, "test", None);
            let _ = tokio::time::timeout(Duration::from_micros(wait_us), closing).await;
        }
        let now = store.now_ms().await.unwrap();
        let last = store.close(&[decision], Some(lease), now, "test", None).await.unwrap();
        let outcome = &last.outcomes[&position.id];
        assert!(matches!(outcome, Outcome::AlreadyClosed { .. } | Outcome::Closed { .. }), "{outcome:?}");
        assert_eq!(store.closings(&[position.id]).await.unwrap().len(), 1);
        let told = store.untold(100).await.unwrap();
        assert_eq!(told.iter().filter(|row| row.topic == "position.closed").count(), 1);
        store.close_pool().await;
    });
}

/// A row that another transaction holds is passed over, not waited for, and closes later.
#[test]
fn a_held_row_is_passed_over_and_the_others_close_f41() {
    block_on(async {
        let home = on_postgres().await;
        let store = &home.store;
        prepare(store).await;
        let (held, free) = (open(store, long()).await, open(store, long()).await);
        let pool = sqlx::PgPool::connect(&home.url).await.unwrap();
        let mut other = pool.begin().await.unwrap();
        sqlx::query("SELECT id FROM positions WHERE id = $1 FOR UPDATE")
            .bind(held.id)
            .execute(&mut *other)
            .await
            .unwrap();
        let decisions = [decide(&held, quote(1, 85)), decide(&free, quote(1, 85))];
        let now = store.now_ms().await.unwrap();
        let closed = store.close(&decisions, None, now, "test", None).await.unwrap();
        assert_eq!(closed.outcomes[&held.id], Outcome::Busy);
        assert!(matches!(closed.outcomes[&free.id], Outcome::Closed { .. }));
        other.rollback().await.unwrap();
        let now = store.now_ms().await.unwrap();
        let closed = store.close(&decisions[..1], None, now, "test", None).await.unwrap();
        assert!(matches!(closed.outcomes[&held.id], Outcome::Closed { .. }));
        store.close_pool().await;
    });
}

/// Batches of many in random order, from several tasks at once: no deadlock, each closes once.
#[test]
fn overlapping_batches_in_any_order_close_each_position_once_f41_f42() {
    block_on(async {
        let home = on_postgres().await;
        prepare(&home.store).await;
        let mut positions = Vec::new();
        for _ in 0..200 {
            positions.push(open(&home.store, long()).await);
        }
        let failed = Arc::new(AtomicBool::new(false));
        let closers: Vec<_> = (0..6_u64)
            .map(|seed| {
                let (store, positions, failed) = (home.store.clone(), positions.clone(), Arc::clone(&failed));
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut written = 0;
                    for _ in 0..12 {
                        let mut batch: Vec<_> = positions.iter().map(|p| decide(p, quote(1, 85))).collect();
                        random.shuffle(&mut batch);
                        batch.truncate(60);
                        let now = store.now_ms().await.unwrap();
                        match store.close(&batch, None, now, "test", None).await {
                            Ok(closed) => {
                                written +=
                                    closed.outcomes.values().filter(|o| matches!(o, Outcome::Closed { .. })).count();
                            }
                            Err(_) => failed.store(true, Ordering::Relaxed),
                        }
                    }
                    written
                })
            })
            .collect();
        let mut written = 0;
        for closer in closers {
            written += closer.await.unwrap();
        }
        assert!(!failed.load(Ordering::Relaxed), "no deadlock reaches the caller");
        let ids: Vec<i64> = positions.iter().map(|p| p.id).collect();
        assert_eq!(store_rows(&home.store, &ids).await, (written, written));
        home.store.close_pool().await;
    });
}

async fn store_rows(store: &Positions, ids: &[i64]) -> (usize, usize) {
    let told = store.untold(100_000).await.unwrap();
    (store.closings(ids).await.unwrap().len(), told.iter().filter(|row| row.topic == "position.closed").count())
}

/// Migrations run once, whoever starts at the same time.
#[test]
fn tables_are_made_once_by_many_at_once() {
    block_on(async {
        let server = windlass_testkit::shared_postgres();
        let url = server.database();
        let starts: Vec<_> = (0..6)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { Positions::postgres(&url, &Options::default()).await.map(|_| ()) })
            })
            .collect();
        for start in starts {
            start.await.unwrap().unwrap();
        }
    });
}

#[test]
fn errors_never_hold_the_password() {
    block_on(async {
        let url = "postgres://app:geheim@127.0.0.1:1/x";
        let options = Options { acquire_timeout: Duration::from_millis(300), ..Options::default() };
        let error = Positions::postgres(url, &options).await.unwrap_err();
        let store = Positions::postgres_lazy(url, &options).unwrap();
        let text = format!(
            "{error} {error:?} {store:?} {} {:?}",
            store.place(),
            Positions::postgres_lazy("postgres://:geheim@:x", &options)
        );
        assert!(!text.contains("geheim"), "{text}");
        assert_eq!(error.class(), Class::Retryable);
    });
}
