-- The tables that the cases beside this file are written against.

CREATE TYPE level AS ENUM ('read', 'write');

CREATE TABLE conversations (
    id text PRIMARY KEY,
    title text,
    epoch bigint NOT NULL DEFAULT 0,
    last_seq bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE conversations IS 'tenant: id';

CREATE TABLE members (
    convo_id text NOT NULL REFERENCES conversations,
    member_did text NOT NULL,
    left_at timestamptz,
    read_seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (convo_id, member_did)
);
COMMENT ON TABLE members IS 'tenant: convo_id, member_did
actor: member_did
admits: convo_id
ended: left_at';

CREATE TABLE messages (
    convo_id text NOT NULL REFERENCES conversations,
    seq bigint NOT NULL,
    id text NOT NULL,
    sender_did text NOT NULL,
    message_type text NOT NULL CHECK (message_type IN ('app', 'commit')),
    body bytea NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (convo_id, seq),
    CONSTRAINT messages_id_key UNIQUE (convo_id, id),
    CONSTRAINT messages_global_key UNIQUE (id)
);
COMMENT ON TABLE messages IS 'tenant: convo_id';

CREATE TABLE packages (
    did text NOT NULL,
    id uuid NOT NULL,
    data bytea,
    PRIMARY KEY (did, id)
);
COMMENT ON TABLE packages IS 'tenant: did
actor: did';

CREATE TABLE collections (
    id uuid PRIMARY KEY,
    owner_id bigint NOT NULL,
    title text NOT NULL,
    is_public boolean NOT NULL,
    meta jsonb NOT NULL
);
COMMENT ON TABLE collections IS 'tenant: id, owner_id
actor: owner_id
admits: id
public: is_public';

CREATE TABLE grants (
    collection_id uuid NOT NULL REFERENCES collections,
    user_id bigint NOT NULL,
    level level NOT NULL,
    PRIMARY KEY (collection_id, user_id)
);
COMMENT ON TABLE grants IS 'tenant: collection_id, user_id
actor: user_id
admits: collection_id';

CREATE TABLE documents (
    collection_id uuid NOT NULL REFERENCES collections,
    id uuid NOT NULL,
    parent_id uuid,
    title varchar(100) NOT NULL,
    pages integer NOT NULL,
    tags text[] NOT NULL,
    weight numeric(6, 2) NOT NULL,
    meta jsonb NOT NULL,
    PRIMARY KEY (collection_id, id)
);
COMMENT ON TABLE documents IS 'tenant: collection_id';

CREATE TABLE kinds (
    kind text PRIMARY KEY,
    label text NOT NULL
);

CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM messages';

CREATE TABLE bodies (
    convo_id text NOT NULL REFERENCES conversations,
    ordinal integer NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (convo_id, ordinal)
);
COMMENT ON TABLE bodies IS 'tenant: convo_id';

CREATE TABLE letters (
    convo_id text NOT NULL,
    ordinal integer NOT NULL,
    recipient_did text NOT NULL,
    PRIMARY KEY (convo_id, ordinal, recipient_did),
    FOREIGN KEY (convo_id, ordinal) REFERENCES bodies
);
COMMENT ON TABLE letters IS 'tenant: convo_id, recipient_did
actor: recipient_did
admits: convo_id, ordinal of bodies';
