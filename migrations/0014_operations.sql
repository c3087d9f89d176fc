-- Operations: long work on a collection, done by workers.
-- depends: 0012_collections

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE operations (
    collection_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'pending',
    progress bigint NOT NULL DEFAULT 0,
    config jsonb NOT NULL DEFAULT '{}',
    error_message text,
    attempts bigint NOT NULL DEFAULT 0,
    claimable_at timestamptz DEFAULT now(),
    lease_token uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT operations_pkey PRIMARY KEY (collection_id, id),
    CONSTRAINT operations_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES collections (id) ON DELETE CASCADE,
    CONSTRAINT operations_type_check CHECK (type IN ('index', 'append', 'reindex', 'remove_source', 'delete', 'projection_build')),
    CONSTRAINT operations_status_check CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    CONSTRAINT operations_progress_check CHECK (progress BETWEEN 0 AND 100),
    CONSTRAINT operations_config_check CHECK (jsonb_typeof(config) = 'object'),
    CONSTRAINT operations_lease_check CHECK (
        (status = 'processing') = (lease_token IS NOT NULL)
        AND (status IN ('pending', 'processing')) = (claimable_at IS NOT NULL)
        AND (status IN ('pending', 'processing')) = (finished_at IS NULL)
        AND (error_message IS NULL OR status = 'failed')
    )
) WITH (fillfactor = 80);

COMMENT ON TABLE operations IS 'What workers are to do, do, and have done. pending -> processing, cancelled; processing -> processing (another worker, after the lease), completed, failed, cancelled; the last three are final.
tenant: collection_id';
COMMENT ON COLUMN operations.id IS 'A UUIDv7: in the order of time.';
COMMENT ON COLUMN operations.user_id IS 'Who asked for it.';
COMMENT ON COLUMN operations.claimable_at IS 'From when a worker may claim it: at once while pending, from the end of its lease while processing. Null once it has ended.';
COMMENT ON COLUMN operations.lease_token IS 'Of the worker that has it; without it nothing is written.';

-- What claim_operation looks for.
CREATE INDEX operations_claimable_idx ON operations (claimable_at) WHERE claimable_at IS NOT NULL;

-- What list_operations pages through by status.
CREATE INDEX operations_collection_id_status_idx ON operations (collection_id, status, id);
