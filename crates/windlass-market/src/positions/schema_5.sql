CREATE TABLE audit_chain(
  n bigint PRIMARY KEY,
  audit_id bigint NOT NULL UNIQUE,
  hash text NOT NULL
)
;;
--pg CREATE TRIGGER audit_chain_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_chain FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()
;;
--lite CREATE TRIGGER audit_chain_no_update BEFORE UPDATE ON audit_chain BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END
;;
--lite CREATE TRIGGER audit_chain_no_delete BEFORE DELETE ON audit_chain BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END
