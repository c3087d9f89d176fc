-- The processing queue: a row for each file with changes that nobody has processed.
--
-- A change pushes the row back until the file has been quiet for 5 s, for 60 s at the longest. A
-- worker takes it for a lease and says, when it is done, up to which change: one that came meanwhile
-- keeps the row. What fails is tried again after 10, 20, 40, ... s, and at last given up.

-- name: enqueue_processing :value
-- Note a change of a file, also of a deleted one; how many changes are noted now. No row: no such file.
-- While a worker has it, the end of its lease stays: the change is seen when the worker is done. A
-- lease that has ended is no lease: the change pushes back who takes the file next.
-- tenant: user_id
-- index: files_pkey, processing_queue_pkey
INSERT INTO processing_queue AS q (user_id, file_id, priority, changed_at, waiting_since, ready_at)
SELECT f.user_id, f.id, :priority, statement_timestamp(), statement_timestamp(), statement_timestamp() + interval '5 seconds'
  FROM files AS f
 WHERE f.user_id = :user_id AND f.id = :file_id
    ON CONFLICT (user_id, file_id) DO UPDATE
   SET priority = greatest(q.priority, excluded.priority),
       changed = q.changed + 1,
       changed_at = excluded.changed_at,
       waiting_since = coalesce(q.waiting_since, excluded.waiting_since),
       ready_at = CASE WHEN q.lease_token IS NULL OR q.ready_at <= excluded.changed_at
                       THEN least(excluded.ready_at, q.waiting_since + interval '60 seconds')
                       ELSE q.ready_at
                  END,
       attempts = CASE WHEN q.lease_token IS NULL THEN 0 ELSE q.attempts END,
       error = CASE WHEN q.lease_token IS NULL THEN NULL ELSE q.error END,
       dead_at = NULL
RETURNING q.changed;

-- name: claim_any_processing :many
-- Take what is ready, of everybody; what was taken too often without an answer is given up instead,
-- and has no lease in the rows.
-- A change since it was last taken (waiting_since) is a first attempt, also where a lease ended over it.
-- tenant: none (workers serve all users)
-- index: processing_queue_ready_idx, processing_queue_pkey
WITH urgent AS MATERIALIZED (
    SELECT q.user_id, q.file_id
      FROM processing_queue AS q
     WHERE q.priority = 2 AND q.dead_at IS NULL AND q.ready_at <= statement_timestamp()
     ORDER BY q.ready_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
),
usual AS MATERIALIZED (
    SELECT q.user_id, q.file_id
      FROM processing_queue AS q
     WHERE q.priority = 1 AND q.dead_at IS NULL AND q.ready_at <= statement_timestamp()
     ORDER BY q.ready_at
     LIMIT :limit - (SELECT count(*) FROM urgent)
       FOR UPDATE SKIP LOCKED
),
late AS MATERIALIZED (
    SELECT q.user_id, q.file_id
      FROM processing_queue AS q
     WHERE q.priority = 0 AND q.dead_at IS NULL AND q.ready_at <= statement_timestamp()
     ORDER BY q.ready_at
     LIMIT :limit - (SELECT count(*) FROM urgent) - (SELECT count(*) FROM usual)
       FOR UPDATE SKIP LOCKED
),
candidate AS MATERIALIZED (
    SELECT urgent.user_id, urgent.file_id FROM urgent
     UNION ALL
    SELECT usual.user_id, usual.file_id FROM usual
     UNION ALL
    SELECT late.user_id, late.file_id FROM late
),
taken AS (
    UPDATE processing_queue AS q
       SET lease_token = CASE WHEN q.waiting_since IS NOT NULL OR q.attempts < :max_attempts::bigint THEN :lease_token::uuid END,
           ready_at = statement_timestamp() + :lease::interval,
           waiting_since = NULL,
           attempts = CASE WHEN q.waiting_since IS NULL THEN least(q.attempts + 1, :max_attempts) ELSE 1 END,
           error = CASE WHEN q.waiting_since IS NOT NULL THEN NULL
                        WHEN q.attempts < :max_attempts THEN q.error
                        ELSE 'its workers did not come back'
                   END,
           dead_at = CASE WHEN q.waiting_since IS NULL AND q.attempts >= :max_attempts THEN statement_timestamp() END
      FROM unnest(ARRAY (SELECT candidate.user_id FROM candidate), ARRAY (SELECT candidate.file_id FROM candidate))
           AS picked (user_id, file_id)
     WHERE q.user_id = picked.user_id AND q.file_id = picked.file_id
 RETURNING q.user_id, q.file_id, q.priority, q.changed, q.attempts, q.lease_token, q.ready_at
)
SELECT taken.user_id, taken.file_id, taken.priority, taken.changed, taken.attempts, taken.lease_token, taken.ready_at AS lease_until
  FROM taken
 ORDER BY taken.priority DESC, taken.user_id, taken.file_id;

-- name: claim_user_processing :many
-- As claim_any_processing, of one user.
-- tenant: user_id
-- index: processing_queue_user_ready_idx, processing_queue_pkey
WITH urgent AS MATERIALIZED (
    SELECT q.file_id
      FROM processing_queue AS q
     WHERE q.user_id = :user_id AND q.priority = 2 AND q.dead_at IS NULL AND q.ready_at <= statement_timestamp()
     ORDER BY q.ready_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
),
usual AS MATERIALIZED (
    SELECT q.file_id
      FROM processing_queue AS q
     WHERE q.user_id = :user_id AND q.priority = 1 AND q.dead_at IS NULL AND q.ready_at <= statement_timestamp()
     ORDER BY q.ready_at
     LIMIT :limit - (SELECT count(*) FROM urgent)
       FOR UPDATE SKIP LOCKED
),
late AS MATERIALIZED (
    SELECT q.file_id
      FROM processing_queue AS q
     WHERE q.user_id = :user_id AND q.priority = 0 AND q.dead_at IS NULL AND q.ready_at <= statement_timestamp()
     ORDER BY q.ready_at
     LIMIT :limit - (SELECT count(*) FROM urgent) - (SELECT count(*) FROM usual)
       FOR UPDATE SKIP LOCKED
),
candidate AS MATERIALIZED (
    SELECT urgent.file_id FROM urgent
     UNION ALL
    SELECT usual.file_id FROM usual
     UNION ALL
    SELECT late.file_id FROM late
),
taken AS (
    UPDATE processing_queue AS q
       SET lease_token = CASE WHEN q.waiting_since IS NOT NULL OR q.attempts < :max_attempts::bigint THEN :lease_token::uuid END,
           ready_at = statement_timestamp() + :lease::interval,
           waiting_since = NULL,
           attempts = CASE WHEN q.waiting_since IS NULL THEN least(q.attempts + 1, :max_attempts) ELSE 1 END,
           error = CASE WHEN q.waiting_since IS NOT NULL THEN NULL
                        WHEN q.attempts < :max_attempts THEN q.error
                        ELSE 'its workers did not come back'
                   END,
           dead_at = CASE WHEN q.waiting_since IS NULL AND q.attempts >= :max_attempts THEN statement_timestamp() END
     WHERE q.user_id = :user_id AND q.file_id = ANY (ARRAY (SELECT candidate.file_id FROM candidate))
 RETURNING q.user_id, q.file_id, q.priority, q.changed, q.attempts, q.lease_token, q.ready_at
)
SELECT taken.user_id, taken.file_id, taken.priority, taken.changed, taken.attempts, taken.lease_token, taken.ready_at AS lease_until
  FROM taken
 ORDER BY taken.priority DESC, taken.file_id;

-- name: complete_processing :value
-- Whoever has the lease is done up to a change: remove the row, or keep it for a change since.
-- tenant: user_id
-- index: processing_queue_pkey
-- The row is locked before its counter is read: a change that is being noted is waited for.
WITH locked AS MATERIALIZED (
    SELECT q.file_id, q.changed
      FROM processing_queue AS q
     WHERE q.user_id = :user_id AND q.file_id = :file_id AND q.lease_token = :lease_token
       FOR UPDATE
),
done AS (
    DELETE FROM processing_queue AS q
     USING locked
     WHERE q.user_id = :user_id AND q.file_id = locked.file_id AND locked.changed = :changed
 RETURNING q.file_id
),
kept AS (
    UPDATE processing_queue AS q
       SET lease_token = NULL, attempts = 0, error = NULL,
           ready_at = least(q.changed_at + interval '5 seconds', q.waiting_since + interval '60 seconds')
      FROM locked
     WHERE q.user_id = :user_id AND q.file_id = locked.file_id AND locked.changed <> :changed
)
SELECT EXISTS (SELECT FROM done) AS done;

-- name: release_failed :maybe
-- Whoever has the lease failed: back off, or give up after the last attempt; a change since starts anew.
-- tenant: user_id
-- index: processing_queue_pkey
UPDATE processing_queue AS q
   SET lease_token = NULL,
       attempts = CASE WHEN q.changed = :changed THEN q.attempts ELSE 0 END,
       error = CASE WHEN q.changed = :changed THEN :error::text END,
       ready_at = CASE WHEN q.changed = :changed
                       THEN statement_timestamp() + interval '5 seconds' * power(2, q.attempts)
                       ELSE least(q.changed_at + interval '5 seconds', q.waiting_since + interval '60 seconds')
                  END,
       dead_at = CASE WHEN q.changed = :changed AND q.attempts >= :max_attempts::bigint THEN statement_timestamp() END
 WHERE q.user_id = :user_id AND q.file_id = :file_id AND q.lease_token = :lease_token
RETURNING q.file_id, q.changed, q.attempts, q.error, q.ready_at, q.dead_at;

-- name: list_dead_processing :page
-- The dead letters of a user, the oldest first.
-- tenant: user_id
-- key: dead_at, file_id
-- index: processing_queue_dead_idx
SELECT q.file_id, q.changed, q.attempts, q.error, q.ready_at, q.dead_at
  FROM processing_queue AS q
 WHERE q.user_id = :user_id AND q.dead_at IS NOT NULL
   AND (q.dead_at, q.file_id)
       > (coalesce(:cursor_dead_at::timestamptz, '-infinity'), coalesce(:cursor_file_id::uuid, '00000000-0000-0000-0000-000000000000'))
 ORDER BY q.dead_at, q.file_id
 LIMIT :limit;
