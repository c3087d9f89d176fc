-- Documents and the chunks that they are cut into.
-- depends: 0006_objects 0012_collections

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

-- One index for a collection's id and its words: a search reads nothing of other collections.
CREATE EXTENSION IF NOT EXISTS btree_gin;

CREATE TABLE documents (
    collection_id uuid NOT NULL,
    id uuid NOT NULL,
    file_name text NOT NULL,
    file_path text COLLATE "C",
    file_size bigint NOT NULL,
    mime_type text,
    content_hash bytea NOT NULL,
    source_path text COLLATE "C",
    uri text COLLATE "C",
    status text COLLATE "C" NOT NULL DEFAULT 'pending',
    error text,
    retry_count bigint NOT NULL DEFAULT 0,
    chunk_count bigint NOT NULL DEFAULT 0,
    chunks_version bigint NOT NULL DEFAULT 0,
    object_hash text COLLATE "C",
    object_state text COLLATE "C",
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    stale_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT documents_pkey PRIMARY KEY (collection_id, id),
    CONSTRAINT documents_collection_id_content_hash_key UNIQUE (collection_id, content_hash),
    CONSTRAINT documents_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES collections (id) ON DELETE CASCADE,
    CONSTRAINT documents_object_fkey FOREIGN KEY (object_hash, object_state) REFERENCES objects (hash, state),
    CONSTRAINT documents_object_state_check CHECK ((object_hash IS NULL) = (object_state IS NULL) AND object_state = 'stored'),
    CONSTRAINT documents_content_hash_check CHECK (octet_length(content_hash) = 32),
    CONSTRAINT documents_status_check CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    CONSTRAINT documents_error_check CHECK (error IS NULL OR status = 'failed'),
    CONSTRAINT documents_numbers_check CHECK (file_size >= 0 AND retry_count >= 0 AND chunk_count >= 0 AND chunks_version >= 0)
);

COMMENT ON TABLE documents IS 'What a collection was given, once for each content.
tenant: collection_id';
COMMENT ON COLUMN documents.id IS 'A UUIDv7: in the order of time.';
COMMENT ON COLUMN documents.content_hash IS 'SHA-256 of the content.';
COMMENT ON COLUMN documents.source_path IS 'The root of the source it was found under.';
COMMENT ON COLUMN documents.chunks_version IS 'How often its chunks were replaced; each chunk says of which time it is.';
COMMENT ON COLUMN documents.last_seen_at IS 'When a sync met this content last.';
COMMENT ON COLUMN documents.stale_at IS 'Since when a sync no longer meets it.';

-- What list_documents pages through by status, and retry_failed_documents takes.
CREATE INDEX documents_collection_id_status_idx ON documents (collection_id, status, id);

-- What is looked for by where it came from; the newest of several.
CREATE INDEX documents_collection_id_uri_idx ON documents (collection_id, uri, id) WHERE uri IS NOT NULL;
CREATE INDEX documents_collection_id_file_path_idx ON documents (collection_id, file_path, id) WHERE file_path IS NOT NULL;

-- What mark_unseen_stale looks for.
CREATE INDEX documents_unseen_idx ON documents (collection_id, last_seen_at) WHERE stale_at IS NULL;

-- What the collector asks: is there a reference?
CREATE INDEX documents_object_hash_idx ON documents (object_hash);

CREATE TABLE chunks (
    collection_id uuid NOT NULL,
    document_id uuid NOT NULL,
    chunk_index bigint NOT NULL,
    version bigint NOT NULL,
    content text NOT NULL,
    token_count bigint NOT NULL,
    start_offset bigint,
    end_offset bigint,
    embedding_id text COLLATE "C",
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    search tsvector NOT NULL GENERATED ALWAYS AS (to_tsvector('english', content)) STORED,
    CONSTRAINT chunks_pkey PRIMARY KEY (collection_id, document_id, chunk_index),
    CONSTRAINT chunks_document_fkey FOREIGN KEY (collection_id, document_id) REFERENCES documents (collection_id, id) ON DELETE CASCADE,
    CONSTRAINT chunks_numbers_check CHECK (chunk_index >= 0 AND version >= 1 AND token_count >= 0),
    CONSTRAINT chunks_offsets_check CHECK (start_offset >= 0 AND end_offset >= start_offset),
    CONSTRAINT chunks_metadata_check CHECK (jsonb_typeof(metadata) = 'object')
) PARTITION BY HASH (collection_id);

COMMENT ON TABLE chunks IS 'Pieces of documents. All chunks of a collection are in one partition, which every statement finds by its collection_id.
tenant: collection_id';
COMMENT ON COLUMN chunks.version IS 'documents.chunks_version when it was stored: the chunks of one version belong together.';
COMMENT ON COLUMN chunks.embedding_id IS 'Of its vector, in the vector store. Null until there is one.';
COMMENT ON COLUMN chunks.search IS 'Words for search_chunks; of English, by their stems.';

-- What list_chunks_without_embedding pages through.
CREATE INDEX chunks_without_embedding_idx ON chunks (collection_id, document_id, chunk_index) WHERE embedding_id IS NULL;

CREATE INDEX chunks_search_idx ON chunks USING gin (collection_id, search);

CREATE TABLE chunks_00 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 0);
CREATE TABLE chunks_01 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 1);
CREATE TABLE chunks_02 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 2);
CREATE TABLE chunks_03 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 3);
CREATE TABLE chunks_04 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 4);
CREATE TABLE chunks_05 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 5);
CREATE TABLE chunks_06 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 6);
CREATE TABLE chunks_07 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 7);
CREATE TABLE chunks_08 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 8);
CREATE TABLE chunks_09 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 9);
CREATE TABLE chunks_10 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 10);
CREATE TABLE chunks_11 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 11);
CREATE TABLE chunks_12 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 12);
CREATE TABLE chunks_13 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 13);
CREATE TABLE chunks_14 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 14);
CREATE TABLE chunks_15 PARTITION OF chunks FOR VALUES WITH (MODULUS 16, REMAINDER 15);
