CREATE TABLE ticks(
  symbol text NOT NULL,
  seq bigint NOT NULL,
  ts_ms bigint NOT NULL,
  bid bigint NOT NULL,
  ask bigint NOT NULL,
  received_at_ms bigint NOT NULL,
  PRIMARY KEY(symbol, seq)
)
;;
CREATE INDEX ticks_received ON ticks(received_at_ms)
