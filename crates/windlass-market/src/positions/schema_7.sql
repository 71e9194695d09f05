ALTER TABLE positions ADD COLUMN asked_at_ms bigint
;;
CREATE TABLE callbacks(
  position_id bigint NOT NULL,
  leg bigint NOT NULL,
  state text NOT NULL DEFAULT 'asked' CHECK(state IN ('asked', 'failed', 'closed', 'already_closed', 'gone')),
  fill {json} NOT NULL,
  detail {json} NOT NULL,
  actor text NOT NULL,
  shard bigint,
  fence bigint,
  decided_at_ms bigint NOT NULL,
  asked_at_ms bigint NOT NULL,
  ended_at_ms bigint,
  answer text,
  PRIMARY KEY(position_id, leg)
)
;;
CREATE INDEX callbacks_waiting ON callbacks(asked_at_ms) WHERE state IN ('asked', 'failed')
