-- Operations: users ask for them, workers claim them and hold them by a lease.
--
-- pending -> processing (claimed), cancelled
-- processing -> processing (claimed again, once the lease has ended), completed, failed (also by the claim
-- that would be one too many), cancelled
-- Whatever a worker writes carries the token of its lease, which is there while processing; one that lost
-- it changes nothing. (The end of the lease is put in a coalesce lest a row is looked for by it.)

-- name: insert_operation :maybe
-- Ask for an operation. No row: the collection is not there, or not the user's to write.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx
INSERT INTO operations AS o (collection_id, id, user_id, type, config, claimable_at)
SELECT c.id, :operation_id, :user_id, :type, :config::jsonb, statement_timestamp()
  FROM collections AS c
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p
                    WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
RETURNING o.collection_id, o.id, o.user_id, o.type, o.status, o.progress, o.config, o.error_message, o.attempts, o.created_at, o.started_at, o.finished_at;

-- name: get_operation :one
-- One operation; what is public shows none.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, operations_pkey
SELECT o.collection_id, o.id, o.user_id, o.type, o.status, o.progress, o.config, o.error_message, o.attempts, o.created_at, o.started_at, o.finished_at
  FROM collections AS c
  JOIN operations AS o ON o.collection_id = c.id
 WHERE c.id = :collection_id AND o.collection_id = :collection_id AND o.id = :operation_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: page_operations :page
-- The operations of a collection, newest first; what is public shows none.
-- tenant: collection_id
-- actor: user_id
-- key: id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, operations_pkey
SELECT page.collection_id, page.id, page.user_id, page.type, page.status, page.progress, page.config, page.error_message, page.attempts, page.created_at,
       page.started_at, page.finished_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT o.collection_id, o.id, o.user_id, o.type, o.status, o.progress, o.config, o.error_message, o.attempts, o.created_at, o.started_at, o.finished_at
         FROM operations AS o
        WHERE o.collection_id = c.id
          AND o.id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        ORDER BY o.id DESC
        LIMIT :limit) AS page ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id))
 ORDER BY page.id DESC;

-- name: page_operations_by_status :page
-- The operations of one status, newest first; what is public shows none.
-- tenant: collection_id
-- actor: user_id
-- key: id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, operations_collection_id_status_idx
SELECT page.collection_id, page.id, page.user_id, page.type, page.status, page.progress, page.config, page.error_message, page.attempts, page.created_at,
       page.started_at, page.finished_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT o.collection_id, o.id, o.user_id, o.type, o.status, o.progress, o.config, o.error_message, o.attempts, o.created_at, o.started_at, o.finished_at
         FROM operations AS o
        WHERE o.collection_id = c.id AND o.status = :status
          AND o.id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        ORDER BY o.id DESC
        LIMIT :limit) AS page ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id))
 ORDER BY page.id DESC;

-- name: take_operation :maybe
-- Claim the operation that has waited longest: it is pending, or its worker's lease has ended.
-- One that was claimed too often without an answer is failed instead.
-- tenant: none (workers serve all collections)
-- index: operations_claimable_idx, operations_pkey
WITH candidate AS MATERIALIZED (
    SELECT o.collection_id, o.id
      FROM operations AS o
     WHERE o.claimable_at IS NOT NULL AND o.claimable_at <= statement_timestamp()
     ORDER BY o.claimable_at
     LIMIT 1
       FOR UPDATE SKIP LOCKED
)
UPDATE operations AS o
   SET status = CASE WHEN o.attempts < :max_attempts::bigint THEN 'processing' ELSE 'failed' END,
       error_message = CASE WHEN o.attempts >= :max_attempts THEN 'its workers did not come back, ' || o.attempts || ' times' END,
       lease_token = CASE WHEN o.attempts < :max_attempts THEN :lease_token::uuid END,
       claimable_at = CASE WHEN o.attempts < :max_attempts THEN statement_timestamp() + :lease::interval END,
       started_at = CASE WHEN o.attempts < :max_attempts THEN statement_timestamp() ELSE o.started_at END,
       finished_at = CASE WHEN o.attempts >= :max_attempts THEN statement_timestamp() END,
       attempts = least(o.attempts + 1, :max_attempts),
       progress = CASE WHEN o.attempts < :max_attempts THEN 0 ELSE o.progress END
  FROM candidate
 WHERE o.collection_id = candidate.collection_id AND o.id = candidate.id
RETURNING o.collection_id, o.id, o.user_id, o.type, o.status, o.progress, o.config, o.error_message, o.attempts, o.created_at, o.started_at, o.finished_at,
          o.lease_token, o.claimable_at AS lease_until;

-- name: renew_operation_lease :rows
-- A worker is alive. No row: it has lost its lease.
-- tenant: collection_id
-- index: operations_pkey
UPDATE operations AS o
   SET claimable_at = greatest(o.claimable_at, statement_timestamp() + :lease::interval)
 WHERE o.collection_id = :collection_id AND o.id = :operation_id
   AND o.lease_token = :lease_token AND coalesce(o.claimable_at, '-infinity') > statement_timestamp();

-- name: report_operation_progress :rows
-- A worker is alive, and so far. No row: it has lost its lease.
-- tenant: collection_id
-- index: operations_pkey
UPDATE operations AS o
   SET progress = :progress, claimable_at = greatest(o.claimable_at, statement_timestamp() + :lease::interval)
 WHERE o.collection_id = :collection_id AND o.id = :operation_id
   AND o.lease_token = :lease_token AND coalesce(o.claimable_at, '-infinity') > statement_timestamp();

-- name: complete_operation :rows
-- A worker has done it. No row: it has lost its lease.
-- tenant: collection_id
-- index: operations_pkey
UPDATE operations AS o
   SET status = 'completed', progress = 100, lease_token = NULL, claimable_at = NULL, finished_at = statement_timestamp()
 WHERE o.collection_id = :collection_id AND o.id = :operation_id
   AND o.lease_token = :lease_token AND coalesce(o.claimable_at, '-infinity') > statement_timestamp();

-- name: fail_operation :rows
-- A worker could not do it. No row: it has lost its lease.
-- tenant: collection_id
-- index: operations_pkey
UPDATE operations AS o
   SET status = 'failed', error_message = :error_message, lease_token = NULL, claimable_at = NULL, finished_at = statement_timestamp()
 WHERE o.collection_id = :collection_id AND o.id = :operation_id
   AND o.lease_token = :lease_token AND coalesce(o.claimable_at, '-infinity') > statement_timestamp();

-- name: end_operation :maybe
-- Cancel an operation that has not ended; its worker loses the lease.
-- No row: there is none, or it is not the user's to write.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, operations_pkey
WITH locked AS MATERIALIZED (
    SELECT o.collection_id, o.id, o.status
      FROM collections AS c
      JOIN operations AS o ON o.collection_id = c.id
     WHERE c.id = :collection_id AND o.collection_id = :collection_id AND o.id = :operation_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
       FOR UPDATE OF o
),
cancelled AS (
    UPDATE operations AS o
       SET status = 'cancelled', lease_token = NULL, claimable_at = NULL, finished_at = statement_timestamp()
      FROM locked
     WHERE o.collection_id = :collection_id AND o.id = :operation_id
       AND locked.collection_id = o.collection_id AND locked.id = o.id AND locked.status IN ('pending', 'processing')
 RETURNING o.id
)
SELECT locked.id, EXISTS (SELECT FROM cancelled) AS is_cancelled FROM locked;
