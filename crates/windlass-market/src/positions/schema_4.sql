ALTER TABLE positions ADD COLUMN mapped_version text
;;
CREATE TABLE unmapped(id text PRIMARY KEY, why text NOT NULL, since_ms bigint NOT NULL)
