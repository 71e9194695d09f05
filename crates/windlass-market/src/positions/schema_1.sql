CREATE TABLE instruments(
  symbol text PRIMARY KEY,
  digits bigint NOT NULL CHECK(digits BETWEEN 0 AND 18),
  min_stop_points bigint NOT NULL DEFAULT 0 CHECK(min_stop_points >= 0),
  max_spread_points bigint CHECK(max_spread_points > 0),
  max_jump_points bigint CHECK(max_jump_points > 0),
  max_quote_age_ms bigint NOT NULL DEFAULT 10000 CHECK(max_quote_age_ms > 0),
  spread_grace_ms bigint NOT NULL DEFAULT 3000 CHECK(spread_grace_ms >= 0),
  confirm_ticks bigint NOT NULL DEFAULT 1 CHECK(confirm_ticks BETWEEN 1 AND 3),
  fill_policy text NOT NULL DEFAULT 'trigger_quote' CHECK(fill_policy IN ('trigger_quote', 'level')),
  calendar text NOT NULL DEFAULT '24x7',
  enabled bigint NOT NULL DEFAULT 1
)
;;
CREATE TABLE accounts(
  id bigint PRIMARY KEY,
  currency text NOT NULL,
  balance bigint NOT NULL DEFAULT 0,
  calm bigint NOT NULL DEFAULT 0
)
;;
CREATE TABLE positions(
  id {id},
  account_id bigint NOT NULL,
  symbol text NOT NULL REFERENCES instruments(symbol),
  side bigint NOT NULL CHECK(side IN (1, -1)),
  qty bigint NOT NULL CHECK(qty > 0),
  open_qty bigint NOT NULL CHECK(open_qty >= 0),
  entry bigint NOT NULL CHECK(entry > 0),
  first_sl bigint,
  sl bigint,
  tp bigint,
  sl_guaranteed bigint NOT NULL DEFAULT 0,
  trail_points bigint,
  trail_bps bigint,
  trail_activation bigint,
  trail_step bigint,
  be_trigger bigint,
  be_offset bigint,
  expires_at_ms bigint,
  legs_done bigint NOT NULL DEFAULT 0,
  extreme bigint,
  stop_eff bigint,
  stop_src text,
  mark_seq bigint NOT NULL DEFAULT 0,
  status bigint NOT NULL DEFAULT 0 CHECK(status IN (0, 1, 2)),
  closing_reason text,
  version bigint NOT NULL DEFAULT 1,
  armed_at_ms bigint NOT NULL,
  armed_seq bigint NOT NULL DEFAULT 0,
  opened_at_ms bigint NOT NULL,
  updated_at_ms bigint NOT NULL,
  closed_at_ms bigint,
  CHECK(sl IS NULL OR tp IS NULL OR (tp > sl AND side = 1) OR (tp < sl AND side = -1)),
  CHECK(trail_points IS NULL OR trail_bps IS NULL),
  CHECK((status = 2) = (closed_at_ms IS NOT NULL)),
  CHECK((status = 2) = (open_qty = 0))
) {hot}
;;
CREATE INDEX positions_open ON positions(symbol, id) WHERE status < 2
;;
CREATE INDEX positions_updated ON positions(updated_at_ms)
;;
CREATE INDEX positions_account ON positions(account_id, id)
;;
CREATE TABLE tp_legs(
  position_id bigint NOT NULL,
  leg bigint NOT NULL CHECK(leg BETWEEN 1 AND 5),
  price bigint NOT NULL CHECK(price > 0),
  qty bigint NOT NULL CHECK(qty > 0),
  PRIMARY KEY(position_id, leg)
)
;;
CREATE TABLE closings(
  position_id bigint NOT NULL,
  leg bigint NOT NULL DEFAULT 0,
  qty bigint NOT NULL CHECK(qty > 0),
  reason text NOT NULL,
  level bigint,
  fill bigint NOT NULL,
  bid bigint NOT NULL,
  ask bigint NOT NULL,
  quote_seq bigint NOT NULL,
  quote_ts_ms bigint NOT NULL,
  pnl_points {wide} NOT NULL,
  rule_version text NOT NULL,
  actor text NOT NULL,
  shard bigint,
  fence bigint,
  decided_at_ms bigint NOT NULL,
  closed_at_ms bigint NOT NULL,
  PRIMARY KEY(position_id, leg)
)
;;
CREATE INDEX closings_when ON closings(closed_at_ms)
;;
CREATE TABLE audit(
  id {id},
  at_ms bigint NOT NULL,
  position_id bigint,
  kind text NOT NULL,
  actor text NOT NULL,
  detail {json} NOT NULL
)
;;
CREATE INDEX audit_position ON audit(position_id, id)
;;
CREATE TABLE outbox(
  id {id},
  topic text NOT NULL,
  key text NOT NULL UNIQUE,
  payload {json} NOT NULL,
  created_at_ms bigint NOT NULL,
  sent_at_ms bigint
)
;;
CREATE INDEX outbox_unsent ON outbox(id) WHERE sent_at_ms IS NULL
;;
CREATE TABLE feed_cursor(
  symbol text PRIMARY KEY,
  seq bigint NOT NULL,
  stream_id text,
  gap bigint NOT NULL DEFAULT 0,
  at_ms bigint NOT NULL
)
;;
CREATE TABLE last_quotes(
  symbol text PRIMARY KEY,
  seq bigint NOT NULL,
  ts_ms bigint NOT NULL,
  bid bigint NOT NULL,
  ask bigint NOT NULL
)
;;
CREATE TABLE shard_lease(
  shard bigint PRIMARY KEY,
  token bigint NOT NULL DEFAULT 0,
  owner text,
  expires_at_ms bigint NOT NULL DEFAULT 0
)
;;
--pg CREATE UNLOGGED TABLE marks(position_id bigint PRIMARY KEY, account_id bigint NOT NULL, mark bigint NOT NULL, pnl numeric(38,0) NOT NULL, stale bigint NOT NULL, as_of_ms bigint NOT NULL) WITH (fillfactor=45)
;;
--lite CREATE TABLE marks(position_id bigint PRIMARY KEY, account_id bigint NOT NULL, mark bigint NOT NULL, pnl TEXT NOT NULL, stale bigint NOT NULL, as_of_ms bigint NOT NULL)
;;
--pg CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$
;;
--pg CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()
;;
--lite CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END
;;
--lite CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END
