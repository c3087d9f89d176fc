-- Chunks: pieces of documents, in 16 hash partitions by their collection. Each statement finds the one
-- partition by `collection_id = :collection_id`, when it is planned or when it starts.

-- name: lock_document :value
-- The first statement of whoever replaces chunks: what comes after it sees what it waited for.
-- The version that the new chunks will have. No row: no such document, or not the user's to write.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey
SELECT d.chunks_version + 1 AS version
  FROM collections AS c
  JOIN documents AS d ON d.collection_id = c.id
 WHERE c.id = :collection_id AND d.collection_id = :collection_id AND d.id = :document_id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM collection_permissions AS p
                    WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
   FOR NO KEY UPDATE OF d;

-- name: remove_chunks :rows
-- The chunks of a document that is locked go.
-- tenant: collection_id
-- index: chunks_pkey
DELETE FROM chunks AS ch WHERE ch.collection_id = :collection_id AND ch.document_id = :document_id;

-- name: note_chunks :rows
-- A document that is locked has other chunks now: what COPY has brought.
-- tenant: collection_id
-- index: documents_pkey
UPDATE documents AS d
   SET chunk_count = :chunk_count, chunks_version = :version, updated_at = statement_timestamp()
 WHERE d.collection_id = :collection_id AND d.id = :document_id;

-- name: get_chunks_by_document :many
-- All chunks of a document, by their place: of one version, as one statement sees one moment.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, chunks_pkey
-- unbounded: one document's, as many as replace_chunks takes
SELECT ch.collection_id, ch.document_id, ch.chunk_index, ch.version, ch.content, ch.token_count, ch.start_offset, ch.end_offset, ch.embedding_id,
       ch.metadata, ch.created_at
  FROM collections AS c
  LEFT JOIN chunks AS ch ON ch.collection_id = :collection_id AND ch.document_id = :document_id
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id))
 ORDER BY ch.chunk_index;

-- name: list_chunks :page
-- The chunks of a collection, by document and place.
-- tenant: collection_id
-- actor: user_id
-- key: document_id, chunk_index
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, chunks_pkey
SELECT page.collection_id, page.document_id, page.chunk_index, page.version, page.content, page.token_count, page.start_offset, page.end_offset,
       page.embedding_id, page.metadata, page.created_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT ch.collection_id, ch.document_id, ch.chunk_index, ch.version, ch.content, ch.token_count, ch.start_offset, ch.end_offset, ch.embedding_id,
              ch.metadata, ch.created_at
         FROM chunks AS ch
        WHERE ch.collection_id = :collection_id
          AND (ch.document_id, ch.chunk_index) > (coalesce(:cursor_document_id::uuid, '00000000-0000-0000-0000-000000000000'),
                                                  coalesce(:cursor_chunk_index::bigint, -1))
        ORDER BY ch.document_id, ch.chunk_index
        LIMIT :limit) AS page ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id))
 ORDER BY page.document_id, page.chunk_index;

-- name: get_chunk :one
-- One chunk.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, chunks_pkey
SELECT ch.collection_id, ch.document_id, ch.chunk_index, ch.version, ch.content, ch.token_count, ch.start_offset, ch.end_offset, ch.embedding_id,
       ch.metadata, ch.created_at
  FROM collections AS c
  JOIN chunks AS ch ON ch.collection_id = c.id
 WHERE c.id = :collection_id AND ch.collection_id = :collection_id AND ch.document_id = :document_id AND ch.chunk_index = :chunk_index
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: write_embeddings :maybe
-- Say which vectors chunks have. A chunk that was replaced since it was read is of another version, and
-- gets none. No row: the collection is not there, or not the user's to write.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, documents_pkey, chunks_pkey
WITH writable AS MATERIALIZED (
    SELECT c.id
      FROM collections AS c
     WHERE c.id = :collection_id
       AND (c.owner_id = :user_id
            OR EXISTS (SELECT FROM collection_permissions AS p
                        WHERE p.collection_id = c.id AND p.user_id = :user_id AND p.permission IN ('WRITE', 'ADMIN')))
       FOR KEY SHARE OF c
),
-- Whoever replaces or deletes their chunks has the documents first, too, and meets the chunks in any order.
held AS MATERIALIZED (
    SELECT document.id
      FROM writable
     CROSS JOIN (SELECT DISTINCT named.id FROM unnest(:document_ids::uuid[]) AS named (id) ORDER BY named.id) AS given
     CROSS JOIN LATERAL (
           SELECT d.id FROM documents AS d WHERE d.collection_id = :collection_id AND d.id = given.id LIMIT 1 FOR SHARE) AS document
     WHERE writable.id = :collection_id
),
locked AS MATERIALIZED (
    SELECT ch.document_id, ch.chunk_index, given.embedding_id
      FROM held
      JOIN unnest(:document_ids::uuid[], :chunk_indexes::bigint[], :versions::bigint[], :embedding_ids::text[])
           AS given (document_id, chunk_index, version, embedding_id) ON given.document_id = held.id
      JOIN chunks AS ch ON ch.document_id = given.document_id AND ch.chunk_index = given.chunk_index
     WHERE ch.collection_id = :collection_id AND ch.version = given.version
     ORDER BY ch.document_id, ch.chunk_index -- batches that overlap wait, and do not deadlock
       FOR NO KEY UPDATE OF ch
),
written AS (
    UPDATE chunks AS ch
       SET embedding_id = picked.embedding_id
      FROM unnest(ARRAY (SELECT locked.document_id FROM locked), ARRAY (SELECT locked.chunk_index FROM locked),
                  ARRAY (SELECT locked.embedding_id FROM locked)) AS picked (document_id, chunk_index, embedding_id)
     WHERE ch.collection_id = :collection_id AND ch.document_id = picked.document_id AND ch.chunk_index = picked.chunk_index
       AND EXISTS (SELECT FROM writable WHERE writable.id = :collection_id)
 RETURNING ch.chunk_index
)
SELECT writable.id AS collection_id, (SELECT count(*) FROM written) AS changed FROM writable;

-- name: list_chunks_without_embedding :page
-- The chunks of a collection that have no vector yet, by document and place.
-- tenant: collection_id
-- actor: user_id
-- key: document_id, chunk_index
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, chunks_without_embedding_idx
SELECT page.collection_id, page.document_id, page.chunk_index, page.version, page.content, page.token_count, page.start_offset, page.end_offset,
       page.embedding_id, page.metadata, page.created_at
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT ch.collection_id, ch.document_id, ch.chunk_index, ch.version, ch.content, ch.token_count, ch.start_offset, ch.end_offset, ch.embedding_id,
              ch.metadata, ch.created_at
         FROM chunks AS ch
        WHERE ch.collection_id = :collection_id AND ch.embedding_id IS NULL
          AND (ch.document_id, ch.chunk_index) > (coalesce(:cursor_document_id::uuid, '00000000-0000-0000-0000-000000000000'),
                                                  coalesce(:cursor_chunk_index::bigint, -1))
        ORDER BY ch.document_id, ch.chunk_index
        LIMIT :limit) AS page ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id))
 ORDER BY page.document_id, page.chunk_index;

-- name: count_collection_chunks :value
-- How many chunks a collection has, counted in its index. `collection_statistics` adds up what each
-- document says, and reads far less.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, chunks_pkey
SELECT counted.chunk_count
  FROM collections AS c
 CROSS JOIN LATERAL (SELECT count(*) AS chunk_count FROM chunks AS ch WHERE ch.collection_id = :collection_id) AS counted
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: count_document_chunks :value
-- How many chunks a document has, counted in the index.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, chunks_pkey
SELECT counted.chunk_count
  FROM collections AS c
 CROSS JOIN LATERAL (
       SELECT count(*) AS chunk_count FROM chunks AS ch WHERE ch.collection_id = :collection_id AND ch.document_id = :document_id) AS counted
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id));

-- name: search_chunks :many
-- The chunks of a collection that a text is found in, best first. One index finds them by collection and
-- words; ranking reads each of them.
-- tenant: collection_id
-- actor: user_id
-- index: collections_pkey, collection_permissions_pkey, collection_permissions_user_id_idx, chunks_pkey, chunks_search_idx
-- not-null: rank (nothing that it is made of is null)
SELECT best.collection_id, best.document_id, best.chunk_index, best.version, best.content, best.token_count, best.start_offset, best.end_offset,
       best.embedding_id, best.metadata, best.created_at, best.rank
  FROM collections AS c
  LEFT JOIN LATERAL (
       SELECT ch.collection_id, ch.document_id, ch.chunk_index, ch.version, ch.content, ch.token_count, ch.start_offset, ch.end_offset, ch.embedding_id,
              ch.metadata, ch.created_at, ts_rank_cd(ch.search, websearch_to_tsquery('english', :text)) AS rank
         FROM chunks AS ch
        WHERE ch.collection_id = :collection_id AND ch.search @@ websearch_to_tsquery('english', :text)
        ORDER BY rank DESC, ch.document_id, ch.chunk_index
        LIMIT :limit) AS best ON true
 WHERE c.id = :collection_id
   AND (c.owner_id = :user_id OR c.is_public
        OR EXISTS (SELECT FROM collection_permissions AS p WHERE p.collection_id = c.id AND p.user_id = :user_id))
 ORDER BY best.rank DESC, best.document_id, best.chunk_index;

-- name: measure_partitions :many
-- Each partition of the chunks by what the catalog knows of it: rows as ANALYZE left them, bytes, and the
-- collections that its sample met most. Reads no chunk.
-- tenant: none (for operators)
-- index: none (reads the catalog alone)
-- unbounded: a row for each partition
-- order: relname (partitions of one table stand in one schema)
-- not-null: partition (the catalog's)
-- not-null: row_count (the catalog's)
-- not-null: is_analyzed (the catalog's)
-- not-null: total_bytes (of a partition that the catalog shows)
-- not-null: collection_ids (coalesce)
-- not-null: shares (coalesce)
SELECT c.relname::text AS partition, greatest(c.reltuples, 0)::bigint AS row_count, c.reltuples >= 0 AS is_analyzed,
       pg_total_relation_size(c.oid) AS total_bytes,
       coalesce(s.most_common_vals::text::uuid[], '{}') AS collection_ids, coalesce(s.most_common_freqs, '{}') AS shares
  FROM pg_inherits AS i
  JOIN pg_class AS c ON c.oid = i.inhrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_stats AS s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = 'collection_id'
 WHERE i.inhparent = 'chunks'::regclass
 ORDER BY c.relname;
