-- What an operator asks first.

-- name: get_server_state :one
-- Which server answers, and whether it takes writes.
SELECT current_setting('server_version') AS server_version,
       pg_is_in_recovery() AS in_recovery;

-- name: list_applied_migrations :many
-- The migrations that yoyo has applied here.
-- not-null: migration_id (yoyo writes it in each row; only its type allows for none)
SELECT y.migration_id FROM _yoyo_migration AS y ORDER BY y.migration_id;
