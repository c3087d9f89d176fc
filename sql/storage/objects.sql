-- Objects: intent, upload, stored; then references; then collection.
--
-- Whoever refers to an object holds a key share lock on its row until the commit (the foreign key).
-- Changing `state` needs that lock alone; changing `lease_until` goes beside it. So no statement
-- names `state` in a SET but those that must wait for, or make wait, who refers.

-- name: lease_object :maybe
-- Intend to upload an object, or keep one that is stored from being collected.
-- No row means that somebody else uploads it, or that it is being deleted (`replace_object`). Who
-- takes over from an uploader whose lease has ended writes under a key of its own.
-- DO NOTHING names no key: of two that insert at once, either unique key may be the one to refuse.
-- index: objects_pkey, objects_hash_state_key
WITH made AS (
    INSERT INTO objects AS o (hash, generation, size, state, lease_until)
    VALUES (:hash, :generation, :size, 'pending', statement_timestamp() + make_interval(secs => :upload_lease))
        ON CONFLICT DO NOTHING
 RETURNING o.hash, o.generation, o.size, o.state, o.is_damaged
),
kept AS (
    UPDATE objects AS o
       SET generation = CASE o.state WHEN 'stored' THEN o.generation ELSE :generation END,
           lease_until = CASE o.state WHEN 'stored' THEN greatest(o.lease_until, statement_timestamp() + make_interval(secs => :lease))
                                      ELSE statement_timestamp() + make_interval(secs => :upload_lease) END
     WHERE o.hash = :hash
       AND (o.state = 'stored' OR (o.state = 'pending' AND o.lease_until < statement_timestamp()))
       AND NOT EXISTS (SELECT FROM made)
 RETURNING o.hash, o.generation, o.size, o.state, o.is_damaged
)
SELECT made.hash, made.generation, made.size, made.state, made.is_damaged FROM made
 UNION ALL
SELECT kept.hash, kept.generation, kept.size, kept.state, kept.is_damaged FROM kept;

-- name: replace_object :maybe
-- Intend to upload what is being deleted, under another key than the one that is deleted.
-- No row means that it has been deleted meanwhile.
-- index: objects_pkey, objects_hash_state_key
UPDATE objects AS o
   SET generation = :generation, state = 'pending', is_damaged = false,
       lease_until = statement_timestamp() + make_interval(secs => :upload_lease)
 WHERE o.hash = :hash AND o.state = 'deleting'
RETURNING o.hash, o.generation, o.size, o.state, o.is_damaged;

-- name: extend_lease :rows
-- An upload goes on.
-- index: objects_pkey, objects_hash_state_key
UPDATE objects AS o
   SET lease_until = greatest(o.lease_until, statement_timestamp() + make_interval(secs => :upload_lease))
 WHERE o.hash = :hash AND o.generation = :generation AND o.state <> 'deleting';

-- name: release_lease :rows
-- An upload has failed: the next one need not wait for its lease to end.
-- index: objects_pkey, objects_hash_state_key
UPDATE objects AS o
   SET lease_until = statement_timestamp()
 WHERE o.hash = :hash AND o.generation = :generation AND o.state = 'pending';

-- name: mark_stored :rows
-- The bytes are there; from now on it may be referred to.
-- No row means that the lease has ended, and perhaps somebody else has taken over.
-- index: objects_pkey, objects_hash_state_key
UPDATE objects AS o
   SET state = 'stored', lease_until = statement_timestamp() + make_interval(secs => :lease)
 WHERE o.hash = :hash AND o.generation = :generation
   AND o.state = 'pending' AND o.lease_until > statement_timestamp();

-- name: mark_sound :rows
-- The bytes of a stored object were written anew. No row means that it was collected meanwhile.
-- index: objects_pkey, objects_hash_state_key
UPDATE objects AS o
   SET is_damaged = false,
       lease_until = greatest(o.lease_until, statement_timestamp() + make_interval(secs => :lease))
 WHERE o.hash = :hash AND o.generation = :generation AND o.state = 'stored';

-- name: mark_damaged :rows
-- The bytes were read and are wrong: the next upload of the right ones writes them anew.
-- index: objects_pkey, objects_hash_state_key
UPDATE objects AS o
   SET is_damaged = true
 WHERE o.hash = :hash AND o.generation = :generation AND o.state = 'stored';

-- name: find_object :maybe
-- What a reference leads to.
-- index: objects_hash_state_key
SELECT o.hash, o.generation, o.size, o.state, o.is_damaged
  FROM objects AS o
 WHERE o.hash = :hash AND o.state = 'stored';

-- name: object_reference_count :value
-- How many rows refer to an object.
-- tenant: none (for operators: how many tenants refer to it is nobody else's to know)
-- index: blobs_object_hash_idx, files_object_hash_idx, file_versions_object_hash_idx, documents_object_hash_idx
SELECT (SELECT count(*) FROM blobs AS b WHERE b.object_hash = :hash)
       + (SELECT count(*) FROM files AS f WHERE f.object_hash = :hash)
       + (SELECT count(*) FROM file_versions AS v WHERE v.object_hash = :hash)
       + (SELECT count(*) FROM documents AS d WHERE d.object_hash = :hash) AS reference_count;

-- name: list_objects :many
-- A part of the table, by hash, and what may be collected of it: no lease, and nothing refers to it.
-- min() reads one entry of an index; for EXISTS the planner would rather read all references.
-- tenant: none (collection, over all tenants)
-- index: objects_pkey, blobs_object_hash_idx, files_object_hash_idx, file_versions_object_hash_idx, documents_object_hash_idx
SELECT o.hash, o.generation, o.size, o.state, o.is_damaged,
       o.lease_until < statement_timestamp()
       AND (SELECT min(b.object_hash) FROM blobs AS b WHERE b.object_hash = o.hash) IS NULL
       AND (SELECT min(f.object_hash) FROM files AS f WHERE f.object_hash = o.hash) IS NULL
       AND (SELECT min(v.object_hash) FROM file_versions AS v WHERE v.object_hash = o.hash) IS NULL
       AND (SELECT min(d.object_hash) FROM documents AS d WHERE d.object_hash = o.hash) IS NULL AS is_garbage
  FROM objects AS o
 WHERE o.hash > :after_hash
 ORDER BY o.hash
 LIMIT :limit;

-- name: lock_objects :many
-- Those of the candidates that nobody is about to refer to, locked until the transaction ends.
-- index: objects_pkey
SELECT o.hash
  FROM objects AS o
 WHERE o.hash = ANY(:hashes::text[]) AND o.lease_until < statement_timestamp()
 ORDER BY o.hash
   FOR UPDATE SKIP LOCKED;

-- name: mark_deleting :many
-- The second look, under the locks: a reference that was committed before they were taken is seen by
-- this statement, and not by the one that took them. Who adds a table that refers to objects adds it
-- here; until then its foreign key makes this statement fail.
-- tenant: none (collection, over all tenants)
-- index: objects_pkey, blobs_object_hash_idx, files_object_hash_idx, file_versions_object_hash_idx, documents_object_hash_idx
WITH marked AS (
    UPDATE objects AS o
       SET state = 'deleting', lease_until = statement_timestamp() + make_interval(secs => :lease)
     WHERE o.hash = ANY(:hashes::text[]) AND o.lease_until < statement_timestamp()
       AND NOT EXISTS (SELECT FROM blobs AS b WHERE b.object_hash = o.hash)
       AND NOT EXISTS (SELECT FROM files AS f WHERE f.object_hash = o.hash)
       AND NOT EXISTS (SELECT FROM file_versions AS v WHERE v.object_hash = o.hash)
       AND NOT EXISTS (SELECT FROM documents AS d WHERE d.object_hash = o.hash)
 RETURNING o.hash, o.generation, o.size, o.state, o.is_damaged
)
SELECT marked.hash, marked.generation, marked.size, marked.state, marked.is_damaged FROM marked ORDER BY marked.hash;

-- name: remove_objects :rows
-- The bytes are gone; the row goes too, but for one whose bytes are stored anew.
-- index: objects_pkey, objects_hash_state_key
DELETE FROM objects AS o
 USING unnest(:hashes::text[], :generations::uuid[]) AS gone (hash, generation)
 WHERE o.hash = gone.hash AND o.generation = gone.generation AND o.state = 'deleting';

-- name: list_generations :many
-- What the table says of some objects, to be held against what the store holds.
-- index: objects_pkey
SELECT o.hash, o.generation, o.size, o.state, o.is_damaged, o.lease_until > statement_timestamp() AS is_leased
  FROM objects AS o
 WHERE o.hash = ANY(:hashes::text[])
 ORDER BY o.hash;

-- name: identify_database :one
-- Which database this is: given this id at first use.
-- index: object_stores_pkey
INSERT INTO object_stores AS s (database_id)
VALUES (:database_id)
    ON CONFLICT (number) DO UPDATE SET number = excluded.number
RETURNING s.database_id;
