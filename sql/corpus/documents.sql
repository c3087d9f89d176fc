-- Documents: once for each content in a collection. Who may read and write them stands in `collections`.

-- name: insert_document :maybe
-- Add a document, or return the one that has this content already, which is thereby seen again, and has the
-- original given if it had none.
-- No row: the collection is not there, or not the user's to write.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_collection_id_content_hash_key
INSERT INTO documents AS d (collection_id, id, file_name, file_path, file_size, mime_type, content_hash, source_path, uri, object_hash, object_state)
SELECT c.id, :document_id, :file_name, :file_path, :file_size, :mime_type, :content_hash, :source_path, :uri, :object_hash::text,
       CASE WHEN :object_hash IS NOT NULL THEN 'stored' END
  FROM collections AS c
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p
                    WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
    ON CONFLICT (collection_id, content_hash) DO UPDATE
   SET last_seen_at = statement_timestamp(), stale_at = NULL,
       object_hash = coalesce(d.object_hash, excluded.object_hash), object_state = coalesce(d.object_state, excluded.object_state)
RETURNING d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
          d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at,
          d.id = :document_id AS is_new;

-- name: insert_documents :many
-- As insert_document, for many. In the order of their contents: batches that overlap wait, and do not deadlock.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_collection_id_content_hash_key
WITH stored AS (
    INSERT INTO documents AS d (collection_id, id, file_name, file_path, file_size, mime_type, content_hash, source_path, uri, object_hash, object_state)
    SELECT c.id, given.id, given.file_name, given.file_path, given.file_size, given.mime_type, given.content_hash, given.source_path, given.uri,
           given.object_hash, CASE WHEN given.object_hash IS NOT NULL THEN 'stored' END
      FROM collections AS c
     CROSS JOIN unnest(:document_ids::uuid[], :file_names::text[], :file_paths::text[], :file_sizes::bigint[], :mime_types::text[], :content_hashes::bytea[],
                       :source_paths::text[], :uris::text[], :object_hashes::text[])
           AS given (id, file_name, file_path, file_size, mime_type, content_hash, source_path, uri, object_hash)
     WHERE c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
     ORDER BY given.content_hash, given.id
        ON CONFLICT (collection_id, content_hash) DO UPDATE
       SET last_seen_at = statement_timestamp(), stale_at = NULL,
           object_hash = coalesce(d.object_hash, excluded.object_hash), object_state = coalesce(d.object_state, excluded.object_state)
 RETURNING d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
           d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at,
           d.id = ANY(:document_ids) AS is_new
)
SELECT stored.collection_id, stored.id, stored.file_name, stored.file_path, stored.file_size, stored.mime_type, stored.content_hash, stored.source_path,
       stored.uri, stored.status, stored.error, stored.retry_count, stored.chunk_count, stored.chunks_version, stored.has_original, stored.last_seen_at,
       stored.stale_at, stored.created_at, stored.updated_at, stored.is_new
  FROM stored
 ORDER BY stored.content_hash;

-- name: get_document :one
-- One document.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey
SELECT d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
       d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at
  FROM collections AS c
  JOIN documents AS d ON d.collection_id = c.id
 WHERE c.id = :collection_id AND d.collection_id = :collection_id AND d.id = :document_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: find_original :value
-- Where the bytes of a document are. No row: it is not there, has no original, or is not the user's to read.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey
SELECT d.object_hash
  FROM collections AS c
  JOIN documents AS d ON d.collection_id = c.id
 WHERE c.id = :collection_id AND d.collection_id = :collection_id AND d.id = :document_id AND d.object_hash IS NOT NULL
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: find_document_by_hash :maybe
-- The document with this content.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_collection_id_content_hash_key
SELECT d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
       d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at
  FROM collections AS c
  LEFT JOIN documents AS d ON d.collection_id = c.id AND d.content_hash = :content_hash
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: find_document_by_uri :maybe
-- The newest document that came from a URI.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_collection_id_uri_idx
SELECT newest.collection_id, newest.id, newest.file_name, newest.file_path, newest.file_size, newest.mime_type, newest.content_hash, newest.source_path,
       newest.uri, newest.status, newest.error, newest.retry_count, newest.chunk_count, newest.chunks_version, newest.has_original, newest.last_seen_at,
       newest.stale_at, newest.created_at, newest.updated_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
              d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at
         FROM documents AS d
        WHERE d.collection_id = c.id AND d.uri = :uri
        ORDER BY d.id DESC
        LIMIT 1) AS newest ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: find_document_by_path :maybe
-- The newest document that came from a path.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_collection_id_file_path_idx
SELECT newest.collection_id, newest.id, newest.file_name, newest.file_path, newest.file_size, newest.mime_type, newest.content_hash, newest.source_path,
       newest.uri, newest.status, newest.error, newest.retry_count, newest.chunk_count, newest.chunks_version, newest.has_original, newest.last_seen_at,
       newest.stale_at, newest.created_at, newest.updated_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
              d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at
         FROM documents AS d
        WHERE d.collection_id = c.id AND d.file_path = :file_path
        ORDER BY d.id DESC
        LIMIT 1) AS newest ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: page_documents :page
-- The documents of a collection, newest first.
-- tenant: collection_id
-- actor: user_id
-- key: id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey
SELECT page.collection_id, page.id, page.file_name, page.file_path, page.file_size, page.mime_type, page.content_hash, page.source_path, page.uri,
       page.status, page.error, page.retry_count, page.chunk_count, page.chunks_version, page.has_original, page.last_seen_at, page.stale_at,
       page.created_at, page.updated_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
              d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at
         FROM documents AS d
        WHERE d.collection_id = c.id
          AND d.id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        ORDER BY d.id DESC
        LIMIT :limit) AS page ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id))
 ORDER BY page.id DESC;

-- name: page_documents_by_status :page
-- The documents of one status, newest first.
-- tenant: collection_id
-- actor: user_id
-- key: id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_collection_id_status_idx
SELECT page.collection_id, page.id, page.file_name, page.file_path, page.file_size, page.mime_type, page.content_hash, page.source_path, page.uri,
       page.status, page.error, page.retry_count, page.chunk_count, page.chunks_version, page.has_original, page.last_seen_at, page.stale_at,
       page.created_at, page.updated_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
              d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at
         FROM documents AS d
        WHERE d.collection_id = c.id AND d.status = :status
          AND d.id < coalesce(:cursor_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        ORDER BY d.id DESC
        LIMIT :limit) AS page ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id))
 ORDER BY page.id DESC;

-- name: move_document_status :maybe
-- Change the status, from one of those from which that is allowed. What is completed has no retries behind it.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey
UPDATE documents AS d
   SET status = :status, error = :error::text, updated_at = statement_timestamp(),
       retry_count = CASE WHEN :status = 'completed' THEN 0 ELSE d.retry_count END
  FROM collections AS c
 WHERE d.collection_id = :collection_id AND d.id = :document_id AND d.status = ANY(:allowed::text[])
   AND c.id = :collection_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p
                    WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
RETURNING d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
          d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at;

-- name: find_writable_document :maybe
-- A document that the user may write, as the reason of a refusal wants to know it.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey
SELECT d.collection_id, d.id, d.file_name, d.file_path, d.file_size, d.mime_type, d.content_hash, d.source_path, d.uri, d.status, d.error,
       d.retry_count, d.chunk_count, d.chunks_version, d.object_hash IS NOT NULL AS has_original, d.last_seen_at, d.stale_at, d.created_at, d.updated_at
  FROM collections AS c
  JOIN documents AS d ON d.collection_id = c.id
 WHERE c.id = :collection_id AND d.collection_id = :collection_id AND d.id = :document_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p
                    WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')));

-- name: reset_failed_documents :maybe
-- Documents that failed are pending again, unless they were retried too often; oldest first.
-- No row: the collection is not there, or not the user's to write.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_collection_id_status_idx, documents_pkey
WITH writable AS MATERIALIZED (
    SELECT c.id
      FROM collections AS c
     WHERE c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
),
failed AS MATERIALIZED (
    SELECT d.collection_id, d.id
      FROM writable
      JOIN documents AS d ON d.collection_id = writable.id
     WHERE d.collection_id = :collection_id AND d.status = 'failed' AND d.retry_count < :max_retries
     ORDER BY d.id
     LIMIT :limit
       FOR NO KEY UPDATE OF d SKIP LOCKED
),
reset AS (
    UPDATE documents AS d
       SET status = 'pending', error = NULL, retry_count = d.retry_count + 1, updated_at = statement_timestamp()
      FROM unnest(ARRAY (SELECT failed.collection_id FROM failed), ARRAY (SELECT failed.id FROM failed)) AS picked (collection_id, id)
     WHERE d.collection_id = picked.collection_id AND d.id = picked.id
       AND EXISTS (SELECT FROM writable WHERE writable.id = d.collection_id)
 RETURNING d.id
)
SELECT writable.id AS collection_id, (SELECT count(*) FROM reset) AS changed FROM writable;

-- name: mark_stale :maybe
-- Documents that no sync met since a time are stale; longest unseen first.
-- No row: the collection is not there, or not the user's to write.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_unseen_idx, documents_pkey
WITH writable AS MATERIALIZED (
    SELECT c.id
      FROM collections AS c
     WHERE c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
),
unseen AS MATERIALIZED (
    SELECT d.collection_id, d.id
      FROM writable
      JOIN documents AS d ON d.collection_id = writable.id
     WHERE d.collection_id = :collection_id AND d.stale_at IS NULL AND d.last_seen_at < :seen_before
       AND (:source_path::text IS NULL OR d.source_path = :source_path)
     ORDER BY d.last_seen_at, d.id
     LIMIT :limit
       FOR NO KEY UPDATE OF d SKIP LOCKED
),
marked AS (
    UPDATE documents AS d
       SET stale_at = statement_timestamp()
      FROM unnest(ARRAY (SELECT unseen.collection_id FROM unseen), ARRAY (SELECT unseen.id FROM unseen)) AS picked (collection_id, id)
     WHERE d.collection_id = picked.collection_id AND d.id = picked.id
       AND EXISTS (SELECT FROM writable WHERE writable.id = d.collection_id)
 RETURNING d.id
)
SELECT writable.id AS collection_id, (SELECT count(*) FROM marked) AS changed FROM writable;

-- name: remove_document :value
-- Delete a document with its chunks (ON DELETE CASCADE).
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey
WITH deleted AS (
    DELETE FROM documents AS d
     USING collections AS c
     WHERE d.collection_id = :collection_id AND d.id = :document_id
       AND c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
 RETURNING d.id, c.id AS collection_id, c.owner_id, d.file_name
),
logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action, details)
    SELECT deleted.collection_id, deleted.owner_id, :user_id, 'delete_document',
           jsonb_build_object('document_id', deleted.id, 'file_name', deleted.file_name)
      FROM deleted
)
SELECT count(*) AS deleted FROM deleted;

-- name: collection_statistics :one
-- What is in a collection, counted: reads its documents, and none of its chunks.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey, documents_collection_id_status_idx
SELECT c.id AS collection_id, counted.document_count, counted.pending_count, counted.processing_count, counted.completed_count, counted.failed_count,
       counted.stale_count, counted.chunk_count, counted.total_size, counted.last_document_at
  FROM collections AS c
 CROSS JOIN LATERAL (
       SELECT count(*) AS document_count,
              count(*) FILTER (WHERE d.status = 'pending') AS pending_count,
              count(*) FILTER (WHERE d.status = 'processing') AS processing_count,
              count(*) FILTER (WHERE d.status = 'completed') AS completed_count,
              count(*) FILTER (WHERE d.status = 'failed') AS failed_count,
              count(d.stale_at) AS stale_count,
              coalesce(sum(d.chunk_count), 0)::bigint AS chunk_count,
              coalesce(sum(d.file_size), 0)::bigint AS total_size,
              max(d.created_at) AS last_document_at
         FROM documents AS d
        WHERE d.collection_id = c.id) AS counted
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));
