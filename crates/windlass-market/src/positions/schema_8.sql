ALTER TABLE unmapped ADD COLUMN failed_at_ms bigint
;;
ALTER TABLE callbacks ADD COLUMN enqueued_at_ms bigint
;;
DROP INDEX callbacks_waiting
;;
CREATE INDEX callbacks_waiting ON callbacks(state, asked_at_ms, position_id, leg) WHERE state IN ('asked', 'failed', 'gone')
;;
--pg CREATE VIEW asked_closings AS
SELECT 'close:' || c.position_id || ':' || c.leg AS key, c.state, c.position_id, c.leg, p.account_id, p.symbol,
  CASE p.side WHEN 1 THEN 'long' ELSE 'short' END AS side, (c.fill->>'qty')::bigint AS qty, p.mapped_version AS version,
  c.fill->>'reason' AS reason, (c.fill->>'level')::numeric * unit.price AS level, (c.fill->>'fill')::numeric * unit.price AS price,
  (c.fill->'quote'->>'bid')::numeric * unit.price AS bid, (c.fill->'quote'->>'ask')::numeric * unit.price AS ask,
  (c.fill->'quote'->>'seq')::bigint AS quote_seq, (c.fill->'quote'->>'ts_ms')::bigint AS quote_ts_ms, c.decided_at_ms
FROM callbacks c JOIN positions p ON p.id = c.position_id JOIN instruments i ON i.symbol = p.symbol
CROSS JOIN LATERAL (SELECT ('1e-' || i.digits)::numeric AS price) unit
