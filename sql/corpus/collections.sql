-- Collections: who may see and change them stands in each statement.
--
-- Read: the owner, anybody where it is public, and whoever has a permission. Write: the owner, WRITE
-- and ADMIN. Change the collection itself, and grant: the owner and ADMIN. Delete: the owner.

-- name: insert_collection :maybe
-- Create a collection. No row means that its owner has one of this name.
-- tenant: owner_id, collection_id
-- actor: owner_id
-- index: collections_owner_id_name_key
WITH created AS (
    INSERT INTO collections AS c (id, owner_id, name, description, vector_store_name, embedding_model, embedding_dimension, sync_mode,
                                  sync_interval_minutes, next_sync_at, is_public, meta)
    VALUES (:collection_id, :owner_id, :name, :description, :vector_store_name, :embedding_model, :embedding_dimension, :sync_mode,
            :sync_interval_minutes, CASE WHEN :sync_mode = 'continuous' THEN statement_timestamp() END, :is_public, :meta::jsonb)
        ON CONFLICT (owner_id, name) DO NOTHING
 RETURNING c.id, c.owner_id, c.name, c.description, c.status, c.status_message, c.vector_store_name, c.embedding_model, c.embedding_dimension,
           c.sync_mode, c.sync_interval_minutes, c.next_sync_at, c.sync_paused_at, c.last_synced_at, c.is_public, c.meta, c.created_at, c.updated_at
),
logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action, details)
    SELECT created.id, created.owner_id, created.owner_id, 'create_collection', jsonb_build_object('name', created.name) FROM created
)
SELECT created.id, created.owner_id, created.name, created.description, created.status, created.status_message, created.vector_store_name,
       created.embedding_model, created.embedding_dimension, created.sync_mode, created.sync_interval_minutes, created.next_sync_at,
       created.sync_paused_at, created.last_synced_at, created.is_public, created.meta, created.created_at, created.updated_at
  FROM created;

-- name: get_collection :one
-- One collection.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
SELECT c.id, c.owner_id, c.name, c.description, c.status, c.status_message, c.vector_store_name, c.embedding_model, c.embedding_dimension,
       c.sync_mode, c.sync_interval_minutes, c.next_sync_at, c.sync_paused_at, c.last_synced_at, c.is_public, c.meta, c.created_at, c.updated_at
  FROM collections AS c
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: list_collections :page
-- A user's own collections and those that others share with them, newest first: two index ranges, merged.
-- tenant: user_id
-- actor: user_id
-- key: id
-- index: collections_owner_id_idx, collections_pkey, collection_permissions_user_id_idx
SELECT c.id, c.owner_id, c.name, c.description, c.status, c.status_message, c.vector_store_name, c.embedding_model, c.embedding_dimension,
       c.sync_mode, c.sync_interval_minutes, c.next_sync_at, c.sync_paused_at, c.last_synced_at, c.is_public, c.meta, c.created_at, c.updated_at
  FROM (
       (SELECT own.id
          FROM collections AS own
         WHERE own.owner_id = :user_id
           AND (:status::text IS NULL OR own.status = :status)
           AND own.id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         ORDER BY own.id DESC
         LIMIT :limit)
        UNION
       (SELECT p.collection_id
          FROM collection_permissions AS p
          JOIN collections AS shared ON shared.id = p.collection_id
         WHERE p.user_id = :user_id
           AND (:status::text IS NULL OR shared.status = :status)
           AND p.collection_id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
         ORDER BY p.collection_id DESC
         LIMIT :limit)) AS mine
  JOIN collections AS c ON c.id = mine.id
 ORDER BY c.id DESC
 LIMIT :limit;

-- name: list_public_collections :page
-- What everybody may read, newest first.
-- tenant: none (public is whatever its owner has made everybody's)
-- key: id
-- index: collections_public_idx
SELECT c.id, c.owner_id, c.name, c.description, c.status, c.status_message, c.vector_store_name, c.embedding_model, c.embedding_dimension,
       c.sync_mode, c.sync_interval_minutes, c.next_sync_at, c.sync_paused_at, c.last_synced_at, c.is_public, c.meta, c.created_at, c.updated_at
  FROM collections AS c
 WHERE c.is_public
   AND c.id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
 ORDER BY c.id DESC
 LIMIT :limit;

-- name: change_collection_name :maybe
-- Rename a collection. No row: it is not there, or not the user's to change.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
WITH renamed AS (
    UPDATE collections AS c
       SET name = :name, updated_at = statement_timestamp()
     WHERE c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission = 'ADMIN'))
 RETURNING c.id, c.owner_id, c.name, c.description, c.status, c.status_message, c.vector_store_name, c.embedding_model, c.embedding_dimension,
           c.sync_mode, c.sync_interval_minutes, c.next_sync_at, c.sync_paused_at, c.last_synced_at, c.is_public, c.meta, c.created_at, c.updated_at
),
logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action, details)
    SELECT renamed.id, renamed.owner_id, :user_id, 'rename_collection', jsonb_build_object('name', renamed.name) FROM renamed
)
SELECT renamed.id, renamed.owner_id, renamed.name, renamed.description, renamed.status, renamed.status_message, renamed.vector_store_name,
       renamed.embedding_model, renamed.embedding_dimension, renamed.sync_mode, renamed.sync_interval_minutes, renamed.next_sync_at,
       renamed.sync_paused_at, renamed.last_synced_at, renamed.is_public, renamed.meta, renamed.created_at, renamed.updated_at
  FROM renamed;

-- name: change_collection :maybe
-- Change what is given, and leave the rest. No row: it is not there, or not the user's to change.
-- A sync that becomes continuous is due at once; another interval counts from now.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
WITH changed AS (
    UPDATE collections AS c
       SET description = CASE WHEN :description_given THEN :description::text ELSE c.description END,
           vector_store_name = CASE WHEN :vector_store_name_given THEN :vector_store_name::text ELSE c.vector_store_name END,
           embedding_model = coalesce(:embedding_model, c.embedding_model),
           embedding_dimension = coalesce(:embedding_dimension, c.embedding_dimension),
           sync_mode = coalesce(:sync_mode, c.sync_mode),
           sync_interval_minutes = CASE WHEN coalesce(:sync_mode, c.sync_mode) = 'one_time' AND :sync_interval_minutes::bigint IS NULL THEN NULL
                                        ELSE coalesce(:sync_interval_minutes, c.sync_interval_minutes) END,
           next_sync_at = CASE WHEN coalesce(:sync_mode, c.sync_mode) = 'one_time' THEN NULL
                               WHEN c.sync_mode = 'one_time' THEN statement_timestamp()
                               WHEN c.sync_token IS NULL THEN least(c.next_sync_at, statement_timestamp() + make_interval(mins => :sync_interval_minutes::integer))
                               ELSE c.next_sync_at END,
           sync_token = CASE WHEN coalesce(:sync_mode, c.sync_mode) = 'continuous' THEN c.sync_token END,
           sync_paused_at = CASE WHEN coalesce(:sync_mode, c.sync_mode) = 'continuous' THEN c.sync_paused_at END,
           is_public = coalesce(:is_public, c.is_public),
           meta = coalesce(:meta::jsonb, c.meta),
           updated_at = statement_timestamp()
     WHERE c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission = 'ADMIN'))
 RETURNING c.id, c.owner_id, c.name, c.description, c.status, c.status_message, c.vector_store_name, c.embedding_model, c.embedding_dimension,
           c.sync_mode, c.sync_interval_minutes, c.next_sync_at, c.sync_paused_at, c.last_synced_at, c.is_public, c.meta, c.created_at, c.updated_at
),
logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action, details)
    SELECT changed.id, changed.owner_id, :user_id, 'update_collection', jsonb_build_object('fields', :fields::text[]) FROM changed
)
SELECT changed.id, changed.owner_id, changed.name, changed.description, changed.status, changed.status_message, changed.vector_store_name,
       changed.embedding_model, changed.embedding_dimension, changed.sync_mode, changed.sync_interval_minutes, changed.next_sync_at,
       changed.sync_paused_at, changed.last_synced_at, changed.is_public, changed.meta, changed.created_at, changed.updated_at
  FROM changed;

-- name: move_collection_status :maybe
-- Change the status, from one of those from which that is allowed.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
UPDATE collections AS c
   SET status = :status, status_message = :status_message::text, updated_at = statement_timestamp()
 WHERE c.id = :collection_id AND c.status = ANY(:allowed::text[])
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p
                    WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
RETURNING c.id, c.owner_id, c.name, c.description, c.status, c.status_message, c.vector_store_name, c.embedding_model, c.embedding_dimension,
          c.sync_mode, c.sync_interval_minutes, c.next_sync_at, c.sync_paused_at, c.last_synced_at, c.is_public, c.meta, c.created_at, c.updated_at;

-- name: find_writable_collection :maybe
-- A collection that the user may write to, as the reason of a refusal wants to know it.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
SELECT c.id, c.owner_id, c.name, c.description, c.status, c.status_message, c.vector_store_name, c.embedding_model, c.embedding_dimension,
       c.sync_mode, c.sync_interval_minutes, c.next_sync_at, c.sync_paused_at, c.last_synced_at, c.is_public, c.meta, c.created_at, c.updated_at
  FROM collections AS c
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p
                    WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')));

-- name: remove_collection :value
-- Delete a collection with all that hangs on it, but for the audit log (ON DELETE CASCADE).
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collections_owner_id_idx
WITH deleted AS (
    DELETE FROM collections AS c WHERE c.id = :collection_id AND c.owner_id = :user_id RETURNING c.id, c.owner_id, c.name
),
logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action, details)
    SELECT deleted.id, deleted.owner_id, :user_id, 'delete_collection', jsonb_build_object('name', deleted.name) FROM deleted
)
SELECT count(*) AS deleted FROM deleted;

-- name: upsert_collection_permission :maybe
-- Let somebody read, write or administer; instead of what was granted. No row: the collection is not there,
-- not the user's to grant, or the owner's own.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
WITH shared AS (
    SELECT c.id, c.owner_id
      FROM collections AS c
     WHERE c.id = :collection_id AND c.owner_id <> :grantee_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission = 'ADMIN'))
),
granted AS (
    INSERT INTO collection_permissions AS p (collection_id, user_id, permission)
    SELECT shared.id, :grantee_id, :permission FROM shared
        ON CONFLICT (collection_id, user_id) DO UPDATE SET permission = excluded.permission, granted_at = statement_timestamp()
 RETURNING p.collection_id, p.user_id, p.permission, p.granted_at
),
logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action, details)
    SELECT shared.id, shared.owner_id, :user_id, 'grant_collection_permission',
           jsonb_build_object('user_id', granted.user_id, 'permission', granted.permission)
      FROM shared
      JOIN granted ON granted.collection_id = shared.id
)
SELECT granted.collection_id, granted.user_id, granted.permission, granted.granted_at FROM granted;

-- name: remove_collection_permission :maybe
-- Take back what somebody was let do. No row: the collection is not there, or not the user's to take it
-- back; who was granted something may give it up himself.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
WITH shared AS (
    SELECT c.id, c.owner_id
      FROM collections AS c
     WHERE c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND (p.permission = 'ADMIN' OR p.user_id = :grantee_id)))
),
revoked AS (
    DELETE FROM collection_permissions AS p
     USING shared
     WHERE p.collection_id = shared.id AND p.user_id = :grantee_id
 RETURNING p.collection_id, p.user_id, p.permission
),
logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action, details)
    SELECT shared.id, shared.owner_id, :user_id, 'revoke_collection_permission',
           jsonb_build_object('user_id', revoked.user_id, 'permission', revoked.permission)
      FROM shared
      JOIN revoked ON revoked.collection_id = shared.id
)
SELECT shared.id AS collection_id, EXISTS (SELECT FROM revoked) AS is_revoked FROM shared;

-- name: list_collection_permissions :page
-- Who else may do what.
-- tenant: collection_id
-- actor: user_id
-- key: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
SELECT page.collection_id, page.user_id, page.permission, page.granted_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT g.collection_id, g.user_id, g.permission, g.granted_at
         FROM collection_permissions AS g
        WHERE g.collection_id = c.id AND g.user_id > coalesce(:cursor_user_id::bigint, 0)
        ORDER BY g.user_id
        LIMIT :limit) AS page ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p
                    WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission = 'ADMIN'))
 ORDER BY page.user_id;

-- name: list_audit_log :page
-- What was done to a collection, newest first: for its owner, also once it is gone, and for ADMINs.
-- An ADMIN is of the collection that is there now: what another owner had under this id is not for them.
-- tenant: collection_id
-- actor: user_id
-- key: id
-- index: audit_log_pkey, collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
SELECT a.collection_id, a.id, a.user_id, a.action, a.details, a.created_at
  FROM audit_log AS a
 WHERE a.collection_id = :collection_id
   AND (a.owner_id = :user_id
        OR EXISTS (SELECT FROM collections AS c
                     JOIN collection_permissions AS p ON p.collection_id = c.id
                    WHERE c.id = a.collection_id AND c.owner_id = a.owner_id
                      AND p.collection_id = a.collection_id AND p.user_id = :user_id AND p.permission = 'ADMIN'))
   AND a.id < coalesce(:cursor_id::bigint, 9223372036854775807)
 ORDER BY a.id DESC
 LIMIT :limit;

-- name: take_due_syncs :many
-- Claim collections whose sync is due, or whose last claimant's lease has ended; longest due first.
-- Through arrays, of which the planner expects few rows: it would else read the whole table.
-- tenant: none (workers serve all collections)
-- index: collections_due_idx, collections_pkey
-- not-null: sync_interval_minutes (what is due is continuous: collections_sync_check)
WITH due AS MATERIALIZED (
    SELECT c.id
      FROM collections AS c
     WHERE c.sync_paused_at IS NULL AND c.next_sync_at IS NOT NULL AND c.next_sync_at <= statement_timestamp()
     ORDER BY c.next_sync_at
     LIMIT :limit
       FOR NO KEY UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE collections AS c
       SET sync_token = :token, next_sync_at = statement_timestamp() + :lease::interval
      FROM unnest(ARRAY (SELECT due.id FROM due)) AS picked (id)
     WHERE c.id = picked.id
 RETURNING c.id, c.owner_id, c.name, c.vector_store_name, c.embedding_model, c.embedding_dimension, c.sync_interval_minutes, c.last_synced_at,
           c.meta, c.sync_token, c.next_sync_at
)
SELECT claimed.id AS collection_id, claimed.owner_id, claimed.name, claimed.vector_store_name, claimed.embedding_model, claimed.embedding_dimension,
       claimed.sync_interval_minutes, claimed.last_synced_at, claimed.meta, claimed.sync_token, claimed.next_sync_at AS lease_until
  FROM claimed
 ORDER BY claimed.id;

-- name: renew_sync :rows
-- A worker is still at a sync. No row: another worker has it, or the lease has ended.
-- tenant: collection_id
-- index: collections_pkey
UPDATE collections AS c
   SET next_sync_at = greatest(c.next_sync_at, statement_timestamp() + :lease::interval)
 WHERE c.id = :collection_id AND c.sync_token = :sync_token AND c.next_sync_at > statement_timestamp();

-- name: complete_sync :rows
-- A sync is done; the next one is an interval away. No row: another worker has it, or the lease has ended.
-- tenant: collection_id
-- index: collections_pkey
UPDATE collections AS c
   SET sync_token = NULL, last_synced_at = statement_timestamp(),
       next_sync_at = statement_timestamp() + c.sync_interval_minutes * interval '1 minute'
 WHERE c.id = :collection_id AND c.sync_token = :sync_token AND c.next_sync_at > statement_timestamp();

-- name: move_sync_pause :maybe
-- Pause a continuous sync, or resume it, due at once if its time has come. No row: it is not there, not
-- the user's to change, or there is nothing to sync.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
WITH shared AS MATERIALIZED (
    SELECT c.id, c.owner_id, c.sync_mode, c.sync_paused_at
      FROM collections AS c
     WHERE c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission = 'ADMIN'))
       FOR NO KEY UPDATE OF c
),
changed AS (
    UPDATE collections AS c
       SET sync_paused_at = CASE WHEN :pause THEN statement_timestamp() END, updated_at = statement_timestamp()
      FROM shared
     WHERE c.id = :collection_id AND c.id = shared.id AND shared.sync_mode = 'continuous'
       AND (shared.sync_paused_at IS NULL) = :pause
 RETURNING c.id, c.owner_id
),
logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action)
    SELECT changed.id, changed.owner_id, :user_id, CASE WHEN :pause THEN 'pause_sync' ELSE 'resume_sync' END FROM changed
)
SELECT shared.id AS collection_id, shared.sync_mode = 'continuous' AS is_continuous, EXISTS (SELECT FROM changed) AS is_changed FROM shared;
