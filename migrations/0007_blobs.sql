-- Blobs: encrypted attachments, as references to objects.
-- depends: 0001_conversations 0006_objects

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE blobs (
    uploaded_by_did text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    cid text COLLATE "C" NOT NULL,
    convo_id text COLLATE "C",
    mime_type text,
    size bigint NOT NULL,
    object_hash text COLLATE "C" NOT NULL,
    object_state text COLLATE "C" NOT NULL DEFAULT 'stored',
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT blobs_pkey PRIMARY KEY (uploaded_by_did, cid, id),
    CONSTRAINT blobs_convo_id_cid_uploaded_by_did_key UNIQUE NULLS NOT DISTINCT (convo_id, cid, uploaded_by_did),
    CONSTRAINT blobs_convo_id_id_key UNIQUE (convo_id, id),
    CONSTRAINT blobs_convo_id_fkey FOREIGN KEY (convo_id) REFERENCES conversations (id) ON DELETE CASCADE,
    CONSTRAINT blobs_object_fkey FOREIGN KEY (object_hash, object_state) REFERENCES objects (hash, state),
    CONSTRAINT blobs_object_state_check CHECK (object_state = 'stored')
);

COMMENT ON TABLE blobs IS 'A reference from an uploader, and perhaps a conversation, to an object.
tenant: uploaded_by_did, convo_id
actor: uploaded_by_did';
COMMENT ON COLUMN blobs.cid IS 'CIDv1, raw, sha2-256, base32, of the bytes.';
COMMENT ON COLUMN blobs.id IS 'A UUIDv7: in the order of time.';

-- What the collector asks: is there a reference?
CREATE INDEX blobs_object_hash_idx ON blobs (object_hash);
