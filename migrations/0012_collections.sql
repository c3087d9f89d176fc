-- Collections: whose they are, who else may read or write them, and what was done to them.
-- depends: 0005_users

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE collections (
    id uuid NOT NULL,
    owner_id bigint NOT NULL,
    name text NOT NULL,
    description text,
    status text COLLATE "C" NOT NULL DEFAULT 'pending',
    status_message text,
    vector_store_name text,
    embedding_model text NOT NULL,
    embedding_dimension bigint NOT NULL,
    sync_mode text COLLATE "C" NOT NULL DEFAULT 'one_time',
    sync_interval_minutes bigint,
    next_sync_at timestamptz,
    sync_paused_at timestamptz,
    last_synced_at timestamptz,
    sync_token uuid,
    is_public boolean NOT NULL DEFAULT false,
    meta jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT collections_pkey PRIMARY KEY (id),
    CONSTRAINT collections_owner_id_name_key UNIQUE (owner_id, name),
    CONSTRAINT collections_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT collections_name_check CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT collections_status_check CHECK (status IN ('pending', 'processing', 'ready', 'degraded', 'error')),
    CONSTRAINT collections_embedding_dimension_check CHECK (embedding_dimension BETWEEN 1 AND 65536),
    CONSTRAINT collections_sync_mode_check CHECK (sync_mode IN ('one_time', 'continuous')),
    CONSTRAINT collections_sync_interval_check CHECK (sync_interval_minutes BETWEEN 1 AND 525600),
    CONSTRAINT collections_sync_check CHECK (
        (sync_mode = 'continuous') = (sync_interval_minutes IS NOT NULL)
        AND (sync_mode = 'continuous') = (next_sync_at IS NOT NULL)
        AND (sync_mode = 'continuous' OR (sync_token IS NULL AND sync_paused_at IS NULL))
    ),
    CONSTRAINT collections_meta_check CHECK (jsonb_typeof(meta) = 'object')
);

COMMENT ON TABLE collections IS 'What documents are gathered in. How many there are is counted, or kept by each document: a counter here would be a row that all writers of a collection wait for.
tenant: id, owner_id
actor: owner_id
admits: id
public: is_public';
COMMENT ON COLUMN collections.id IS 'A UUIDv7: in the order of time.';
COMMENT ON COLUMN collections.next_sync_at IS 'When it is due. While a worker syncs it, when the worker''s lease ends, and it is due again.';
COMMENT ON COLUMN collections.sync_token IS 'Of the worker that claimed the sync; without it nothing is written.';
COMMENT ON COLUMN collections.is_public IS 'Anybody may read it, nobody may write it for that.';

-- What list_collections pages through: the owner's, and what is everybody's.
CREATE INDEX collections_owner_id_idx ON collections (owner_id, id);
CREATE INDEX collections_public_idx ON collections (id) WHERE is_public;

-- What claim_due_syncs looks for.
CREATE INDEX collections_due_idx ON collections (next_sync_at) WHERE sync_paused_at IS NULL AND next_sync_at IS NOT NULL;

CREATE TABLE collection_permissions (
    collection_id uuid NOT NULL,
    user_id bigint NOT NULL,
    permission text COLLATE "C" NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT collection_permissions_pkey PRIMARY KEY (collection_id, user_id),
    CONSTRAINT collection_permissions_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES collections (id) ON DELETE CASCADE,
    CONSTRAINT collection_permissions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT collection_permissions_permission_check CHECK (permission IN ('READ', 'WRITE', 'ADMIN'))
);

COMMENT ON TABLE collection_permissions IS 'What the owner of a collection lets others do. WRITE reads too; ADMIN writes too, changes the collection and grants.
tenant: collection_id, user_id
actor: user_id
admits: collection_id';

-- The collections that others share with a user; and what goes when a user goes.
CREATE INDEX collection_permissions_user_id_idx ON collection_permissions (user_id, collection_id);

CREATE TABLE audit_log (
    collection_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    owner_id bigint NOT NULL,
    user_id bigint NOT NULL,
    action text COLLATE "C" NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT audit_log_pkey PRIMARY KEY (collection_id, id)
);

COMMENT ON TABLE audit_log IS 'What was done to a collection, and by whom. It survives what it speaks of: no foreign key leads from it.
tenant: collection_id, owner_id
actor: owner_id';
COMMENT ON COLUMN audit_log.owner_id IS 'Of the collection: who may read this once it is gone.';
COMMENT ON COLUMN audit_log.user_id IS 'Who did it.';
