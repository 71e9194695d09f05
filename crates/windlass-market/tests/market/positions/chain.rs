//! §8.29: the chain over the history tells what was forged, taken away or swapped.

use std::time::Duration;

use sqlx::PgPool;
use windlass_market::positions::{Broken, Change, Link, Positions};

use super::{block_on, on_both, on_postgres, open, prepare};

/// A history of so many lines, linked.
async fn written(store: &Positions, lines: i64) {
    let position = open(store, super::long()).await;
    for n in 1..lines {
        let change = Change { sl: Some(Some(90 - n)), ..Change::default() };
        store.change(position.id, &change, None, "user").await.unwrap().unwrap();
    }
    let (linked, last) = store.link_history(0).await.unwrap();
    assert_eq!(i64::try_from(linked).unwrap(), lines);
    assert_eq!(store.link_history(last).await.unwrap().0, 0, "each line once");
}

#[test]
fn an_untouched_history_is_intact_and_grows_8_29() {
    on_both(async |store: Positions| {
        assert_eq!(store.check_history(None, None).await.unwrap().links, 0);
        written(&store, 12).await;
        let first = store.check_history(None, None).await.unwrap();
        assert_eq!((first.links, first.unlinked, first.broken.len()), (12, 0, 0));
        store.note(None, "gap", "feed", "{\"b\": 1,  \"a\": \"ü\"}").await.unwrap();
        assert_eq!(store.check_history(None, None).await.unwrap().unlinked, 1);
        assert_eq!(store.link_history(0).await.unwrap().0, 1);
        let head = first.head.unwrap();
        let later = store.check_history(Some(5), Some(&head)).await.unwrap();
        assert_eq!((later.links, later.broken.len(), later.head.unwrap().n), (5, 0, 13));
    });
}

/// What somebody does who may do everything.
async fn forge(pool: &PgPool, sql: &str) {
    let sql = format!(
        "ALTER TABLE audit DISABLE TRIGGER ALL; ALTER TABLE audit_chain DISABLE TRIGGER ALL; {sql};
         ALTER TABLE audit ENABLE TRIGGER ALL; ALTER TABLE audit_chain ENABLE TRIGGER ALL"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

#[test]
fn a_forged_a_removed_and_a_swapped_line_are_named_8_29() {
    block_on(async {
        for (sql, expected) in [
            (
                "UPDATE audit SET detail = jsonb_set(detail, '{version}', '7') WHERE id = 4",
                &[(4, Some(4), "line_changed")][..],
            ),
            ("UPDATE audit SET at_ms = at_ms + 1 WHERE id = 6", &[(6, Some(6), "line_changed")]),
            ("DELETE FROM audit WHERE id = 5", &[(5, Some(5), "line_missing")]),
            (
                "UPDATE audit a SET detail = b.detail, at_ms = b.at_ms FROM audit b WHERE (a.id, b.id) IN ((3, 8), (8, 3))",
                &[(3, Some(3), "line_changed"), (8, Some(8), "line_changed")],
            ),
            ("DELETE FROM audit_chain WHERE n = 7", &[(7, None, "link_missing")]),
            (
                "UPDATE audit_chain SET hash = repeat('0', 64) WHERE n = 2",
                &[(2, Some(2), "line_changed"), (3, Some(3), "line_changed")],
            ),
        ] {
            let home = on_postgres().await;
            prepare(&home.store).await;
            written(&home.store, 10).await;
            let pool = PgPool::connect(&home.url).await.unwrap();
            assert!(
                sqlx::query("DELETE FROM audit_chain").execute(&pool).await.is_err(),
                "nobody changes it by accident"
            );
            forge(&pool, sql).await;
            let found = home.store.check_history(None, None).await.unwrap().broken;
            let expected: Vec<Broken> =
                expected.iter().map(|&(n, audit_id, what)| Broken { n, audit_id, what }).collect();
            assert_eq!(found, expected, "{sql}");
            home.store.close_pool().await;
        }
    });
}

/// A chain that was made anew from a forged line on agrees with itself, and not with a head noted before.
#[test]
fn a_chain_made_anew_differs_from_a_noted_head_8_29() {
    block_on(async {
        let home = on_postgres().await;
        prepare(&home.store).await;
        written(&home.store, 10).await;
        let noted: Link = home.store.head().await.unwrap().unwrap();
        let pool = PgPool::connect(&home.url).await.unwrap();
        forge(&pool, "UPDATE audit SET actor = 'nobody' WHERE id = 4; DELETE FROM audit_chain").await;
        assert_eq!(home.store.link_history(0).await.unwrap().0, 10);
        assert!(home.store.check_history(None, None).await.unwrap().broken.is_empty());
        let found = home.store.check_history(None, Some(&noted)).await.unwrap().broken;
        assert_eq!(found, [Broken { n: 10, audit_id: None, what: "head_differs" }]);
        home.store.close_pool().await;
    });
}

/// A line that a long transaction added becomes visible among older ones: it is linked without reading all.
#[test]
fn a_line_that_came_late_is_found_above_the_floor_8_29() {
    block_on(async {
        let home = on_postgres().await;
        assert_eq!(home.store.link_floor(Duration::from_secs(1)).await.unwrap(), 0, "nothing is linked");
        let pool = PgPool::connect(&home.url).await.unwrap();
        let add = "INSERT INTO audit(id, at_ms, kind, actor, detail) SELECT n, n * 1000, 'close', 'sweep', '{}' FROM generate_series(1, 300) n WHERE (n = 250) = $1";
        sqlx::query(add).bind(false).execute(&pool).await.unwrap();
        assert_eq!(home.store.link_history(0).await.unwrap(), (299, 300));
        sqlx::query(add).bind(true).execute(&pool).await.unwrap();
        let floor = async |seconds: u64| home.store.link_floor(Duration::from_secs(seconds)).await.unwrap();
        assert_eq!((floor(20).await, floor(100).await, floor(3_600).await), (279, 199, 0));
        assert_eq!(home.store.link_history(floor(20).await).await.unwrap().0, 0);
        assert_eq!(home.store.link_history(floor(100).await).await.unwrap(), (1, 250));
        assert_eq!(home.store.check_history(None, None).await.unwrap().unlinked, 0);
        home.store.close_pool().await;
    });
}

/// A batch of 3,000 closings is linked in one go, beside whoever writes the next one.
#[test]
fn a_large_batch_is_linked_in_one_go_8_29() {
    block_on(async {
        let home = on_postgres().await;
        let pool = PgPool::connect(&home.url).await.unwrap();
        let lines = "INSERT INTO audit(at_ms, position_id, kind, actor, detail)
                     SELECT n, n, 'close', 'sweep', jsonb_build_object('quote', n, 'rules', repeat('x', 600)) FROM generate_series(1, 3000) n";
        sqlx::query(lines).execute(&pool).await.unwrap();
        let begun = std::time::Instant::now();
        assert_eq!(home.store.link_history(0).await.unwrap(), (3_000, 3_000));
        println!("3,000 lines linked in {:?}", begun.elapsed());
        let checked = home.store.check_history(None, None).await.unwrap();
        println!("and checked after {:?}", begun.elapsed());
        assert_eq!((checked.links, checked.broken.len()), (3_000, 0));
        home.store.close_pool().await;
    });
}
