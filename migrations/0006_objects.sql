-- Objects: bytes in a bucket or a folder, named by their hash.

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE objects (
    hash text COLLATE "C" NOT NULL,
    generation uuid NOT NULL,
    size bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    lease_until timestamptz NOT NULL,
    is_damaged boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT objects_pkey PRIMARY KEY (hash),
    CONSTRAINT objects_hash_state_key UNIQUE (hash, state),
    CONSTRAINT objects_hash_check CHECK (hash ~ '^[0-9a-f]{64}(_[0-9a-f]{32})?$'),
    CONSTRAINT objects_size_check CHECK (size >= 0),
    CONSTRAINT objects_state_check CHECK (state IN ('pending', 'stored', 'deleting'))
);

CREATE TABLE object_stores (
    number bigint NOT NULL DEFAULT 1,
    database_id uuid NOT NULL,
    CONSTRAINT object_stores_pkey PRIMARY KEY (number),
    CONSTRAINT object_stores_number_check CHECK (number = 1)
);

COMMENT ON TABLE object_stores IS 'Which database this is: one row, made at first use.
tenant: none (about the database)
small: one row';
COMMENT ON COLUMN object_stores.database_id IS 'Also written into the object store, under .hash/database: what reconcile deletes there is what this database does not know, so no other may use that store.';

COMMENT ON TABLE objects IS 'What the object store holds, at .hash/{hash}/{generation}.
tenant: none (shared by all tenants, who see it through their references alone)
Who refers to an object holds (object_hash, object_state) with object_state always ''stored'', so that PostgreSQL refuses a reference to what is being deleted, and the deletion of what is referred to.';
COMMENT ON COLUMN objects.hash IS 'SHA-256 in hex; with OBJECT_DEDUPE=tenant, then _ and 32 digits of the SHA-256 of the owner (as JSON: a user 5 is not a DID "5").';
COMMENT ON COLUMN objects.generation IS 'New for each time that the bytes are stored anew: a delete that arrives late names bytes that are gone.';
COMMENT ON COLUMN objects.state IS 'pending: being uploaded. stored: may be referred to. deleting: the collector is at it.';
COMMENT ON COLUMN objects.lease_until IS 'Until then no collector takes it, referred to or not.';
COMMENT ON COLUMN objects.is_damaged IS 'reconcile has read the bytes, and they were wrong: who stores the same bytes again writes them anew.';
