ALTER TABLE instruments ADD COLUMN sources text
;;
ALTER TABLE instruments ADD COLUMN hold_down_ms bigint NOT NULL DEFAULT 3000
;;
ALTER TABLE ticks ADD COLUMN source text
;;
ALTER TABLE last_quotes ADD COLUMN source text
;;
CREATE TABLE source_state(symbol text PRIMARY KEY, state text NOT NULL)
