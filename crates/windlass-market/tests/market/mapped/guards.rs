//! Statements that will not do are refused before anything is watched.

use windlass_market::engine::Engine;
use windlass_market::positions::{Error, Mapping, Options, Positions};
use windlass_market::rules::Side;

use super::{Broker, CLOSE, mapping, quotes};
use crate::positions::block_on;

async fn refused(broker: &Broker, mapping: &Mapping) -> (&'static str, &'static str, String) {
    match Positions::mapped(&broker.url, &Options::default(), mapping).await {
        Err(Error::Refused { field, code, why }) => (field, code, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unguarded_close_statement_is_refused_at_start_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        let check = async |close: &str, code: &str, part: &str| {
            let (field, found, why) = refused(&broker, &Mapping { close: Some(close.to_owned()), ..mapping() }).await;
            assert_eq!((field, found), ("close", code), "{close}: {why}");
            assert!(why.contains(part), "{why}");
        };
        // As far as it can be told without a row.
        let update = "UPDATE trading_position SET status = 'closed', close_price = $2, close_reason = $3 WHERE id = $1";
        check(update, "unguarded", "$4").await;
        check(&format!("{update} AND status = 'open' RETURNING id"), "unguarded", "$4").await;
        check(&format!("{update} AND updated_at = $4"), "unguarded", "RETURNING").await;
        check("UPDATE nowhere SET x = $1", "sql_invalid", "nowhere").await;
        check("", "sql_invalid", "a statement is needed").await;
        check("SELECT 1; DROP TABLE trading_position", "sql_invalid", "").await;
        // With one, each is tried.
        store_with(&broker).await;
        let id = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        check(&format!("{update} AND updated_at = $4 RETURNING id"), "unguarded", "state").await;
        check(&format!("{update} AND status = 'open' AND $4::text = $4::text RETURNING id"), "unguarded", "version")
            .await;
        check(&format!("{update} AND status = 'done' AND updated_at = $4 RETURNING id"), "closes_nothing", "nothing")
            .await;
        assert_eq!(broker.row(id).await.status, "open", "what was tried is undone");
        Positions::mapped(&broker.url, &Options::default(), &mapping()).await.unwrap().close_pool().await;
        assert_eq!(broker.row(id).await.status, "open");
    });
}

async fn store_with(broker: &Broker) {
    broker.store().await.close_pool().await;
}

/// Without a row to try it on, a statement is tried before the first closing.
#[test]
fn the_first_position_shows_whether_the_statement_is_guarded_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        store_with(&broker).await;
        let close = CLOSE.replace("status = 'open'", "status <> 'x'").replace("updated_at = $4", "updated_at >= $4");
        let mapping = Mapping { close: Some(close), ..mapping() };
        let store = Positions::mapped(&broker.url, &Options::default(), &mapping).await.unwrap();
        quotes(&store, 1, &[107_100]).await;
        let id = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        quotes(&store, 2, &[106_000]).await;
        let error = engine.sweep().await.unwrap_err();
        assert!(matches!(error, Error::Refused { field: "close", code: "unguarded", .. }), "{error}");
        assert_eq!(broker.row(id).await.status, "open");
        store.close_pool().await;
    });
}

#[test]
fn queries_without_the_columns_are_refused_at_start_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        let check = async |change: &dyn Fn(&mut Mapping), field: &str, code: &str, part: &str| {
            let mut mapping = mapping();
            change(&mut mapping);
            let (found, found_code, why) = refused(&broker, &mapping).await;
            assert_eq!((found, found_code), (field, code), "{why}");
            assert!(why.contains(part), "{why}");
        };
        let open = |sql: &'static str| move |mapping: &mut Mapping| mapping.open_positions = sql.to_owned();
        let view = "SELECT id, account_id, symbol, side, qty, entry, sl, tp, version FROM worker_open_positions";
        check(&open("SELECT 1 AS id"), "open_positions", "columns", "account_id").await;
        check(&open("SELECT * FROM nowhere"), "open_positions", "sql_invalid", "nowhere").await;
        check(
            &open("SELECT *, 1 AS trail_pionts FROM worker_open_positions"),
            "open_positions",
            "columns",
            "trail_pionts",
        )
        .await;
        check(&open("SELECT *, 1 AS id FROM worker_open_positions"), "open_positions", "columns", "twice").await;
        let float = "SELECT id, account_id, symbol, side, qty, entry::float8 AS entry, sl, tp, version FROM worker_open_positions";
        check(&open(float), "open_positions", "columns", "FLOAT8").await;
        let word =
            "SELECT id::text AS id, account_id, symbol, side, qty, entry, sl, tp, version FROM worker_open_positions";
        check(&open(word), "open_positions", "columns", "TEXT").await;
        check(&|mapping| mapping.changed_since = view.to_owned(), "changed_since", "places", "$1").await;
        check(&|mapping| mapping.schema = "public".to_owned(), "schema", "out_of_range", "its own").await;
        check(&|mapping| mapping.map.side.short = vec!["buy".to_owned()], "map.side", "out_of_range", "").await;
    });
}
