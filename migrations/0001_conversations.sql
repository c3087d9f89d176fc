-- Conversations and who is in them.
--
-- Ids are compared byte by byte (COLLATE "C"): cheaper, and the order of an index does not
-- depend on the operating system's locales.

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE conversations (
    id text COLLATE "C" NOT NULL,
    creator_did text COLLATE "C" NOT NULL,
    title text,
    current_epoch bigint NOT NULL DEFAULT 0,
    last_seq bigint NOT NULL DEFAULT 0,
    app_count bigint NOT NULL DEFAULT 0,
    trimmed_seq bigint NOT NULL DEFAULT 0,
    trimmed_app_count bigint NOT NULL DEFAULT 0,
    trimmed_count bigint NOT NULL DEFAULT 0,
    last_message_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT conversations_pkey PRIMARY KEY (id),
    CONSTRAINT conversations_current_epoch_check CHECK (current_epoch >= 0),
    CONSTRAINT conversations_counters_check CHECK (
        trimmed_seq BETWEEN 0 AND last_seq
        AND trimmed_app_count BETWEEN 0 AND app_count
        AND trimmed_count BETWEEN 0 AND trimmed_seq
        AND app_count <= last_seq
    )
) WITH (fillfactor = 70);

COMMENT ON TABLE conversations IS 'One MLS group each; the row that orders its messages. Every send updates it, so nothing that a send changes is indexed (HOT updates).
tenant: id';
COMMENT ON COLUMN conversations.id IS 'The MLS group id as its creator chose it, or a UUIDv7.';
COMMENT ON COLUMN conversations.last_seq IS 'seq of the newest message; seq has no gaps.';
COMMENT ON COLUMN conversations.app_count IS 'Application messages ever sent here.';
COMMENT ON COLUMN conversations.trimmed_seq IS 'Retention has removed messages up to this seq, but for commits.';
COMMENT ON COLUMN conversations.trimmed_app_count IS 'app_number of the message at trimmed_seq.';
COMMENT ON COLUMN conversations.trimmed_count IS 'How many messages retention has removed.';

CREATE TABLE members (
    convo_id text COLLATE "C" NOT NULL,
    member_did text COLLATE "C" NOT NULL,
    joined_at timestamptz NOT NULL DEFAULT now(),
    left_at timestamptz,
    read_seq bigint NOT NULL DEFAULT 0,
    read_app_count bigint NOT NULL DEFAULT 0,
    CONSTRAINT members_pkey PRIMARY KEY (convo_id, member_did),
    CONSTRAINT members_convo_id_fkey FOREIGN KEY (convo_id) REFERENCES conversations (id) ON DELETE CASCADE,
    CONSTRAINT members_read_check CHECK (read_seq >= 0 AND read_app_count >= 0)
) WITH (fillfactor = 80);

COMMENT ON TABLE members IS 'Who is, or was, in a conversation, and how far each has read.
tenant: convo_id, member_did
actor: member_did
admits: convo_id
ended: left_at';
COMMENT ON COLUMN members.left_at IS 'Null while active. Rejoining clears it.';
COMMENT ON COLUMN members.read_seq IS 'The greatest seq this member has read.';
COMMENT ON COLUMN members.read_app_count IS 'Unread = conversations.app_count - greatest(read_app_count, trimmed_app_count).';

CREATE INDEX members_member_did_idx ON members (member_did, convo_id) WHERE left_at IS NULL;
