-- Messages: one numbered sequence a conversation.
-- depends: 0001_conversations

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE messages (
    convo_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    sender_did text COLLATE "C" NOT NULL,
    message_type text NOT NULL,
    epoch bigint NOT NULL,
    ciphertext bytea NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now(),
    app_number bigint NOT NULL,
    deleted_at timestamptz,
    CONSTRAINT messages_pkey PRIMARY KEY (convo_id, seq),
    CONSTRAINT messages_convo_id_id_key UNIQUE (convo_id, id),
    CONSTRAINT messages_convo_id_fkey FOREIGN KEY (convo_id) REFERENCES conversations (id) ON DELETE CASCADE,
    CONSTRAINT messages_message_type_check CHECK (message_type IN ('app', 'commit', 'proposal')),
    CONSTRAINT messages_numbers_check CHECK (seq >= 1 AND epoch >= 0 AND app_number BETWEEN 0 AND seq),
    CONSTRAINT messages_deleted_check CHECK (deleted_at IS NULL OR ciphertext = '')
);

COMMENT ON TABLE messages IS 'MLS messages, opaque to the server.
tenant: convo_id';
COMMENT ON COLUMN messages.seq IS 'Place in the conversation: 1, 2, 3, ... without gaps.';
COMMENT ON COLUMN messages.id IS 'The sender''s own id: sending it again is a retry.';
COMMENT ON COLUMN messages.epoch IS 'The MLS epoch that the message was made in.';
COMMENT ON COLUMN messages.app_number IS 'Running count of application messages at this row, whatever its type.';
COMMENT ON COLUMN messages.deleted_at IS 'Set when the ciphertext was blanked; the row stays, so that seq has no gaps.';

-- Ciphertext does not compress; do not try.
ALTER TABLE messages ALTER COLUMN ciphertext SET STORAGE EXTERNAL;

-- Exactly one commit per epoch, and the way to find it.
CREATE UNIQUE INDEX messages_convo_id_epoch_key ON messages (convo_id, epoch) WHERE message_type = 'commit';
