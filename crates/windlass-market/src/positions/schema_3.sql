DROP TABLE ticks
;;
CREATE TABLE ticks(
  arrival {id},
  symbol text NOT NULL,
  seq bigint NOT NULL,
  ts_ms bigint NOT NULL,
  bid bigint NOT NULL,
  ask bigint NOT NULL,
  volume bigint NOT NULL DEFAULT 0,
  late bigint NOT NULL DEFAULT 0,
  received_at_ms bigint NOT NULL
)
;;
CREATE UNIQUE INDEX ticks_number ON ticks(symbol, seq)
;;
CREATE INDEX ticks_received ON ticks(received_at_ms)
;;
CREATE TABLE candles(
  symbol text NOT NULL,
  timeframe text NOT NULL,
  start_ms bigint NOT NULL,
  o bigint NOT NULL,
  h bigint NOT NULL,
  l bigint NOT NULL,
  c bigint NOT NULL,
  ah bigint NOT NULL,
  al bigint NOT NULL,
  v {wide} NOT NULL,
  n bigint NOT NULL,
  open_ts bigint NOT NULL,
  open_seq bigint NOT NULL,
  close_ts bigint NOT NULL,
  close_seq bigint NOT NULL,
  rev bigint NOT NULL,
  final bigint NOT NULL,
  PRIMARY KEY(symbol, timeframe, start_ms)
)
;;
CREATE TABLE candle_cursor(shard bigint PRIMARY KEY, arrival bigint NOT NULL)
;;
CREATE TABLE bands(position_id bigint PRIMARY KEY, band text NOT NULL, since_ms bigint NOT NULL, as_of_ms bigint NOT NULL)
;;
CREATE TABLE feeds(name text PRIMARY KEY, place text NOT NULL)
