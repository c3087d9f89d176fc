-- What a commit brings: Welcomes for those it adds, and the new GroupInfo.
-- depends: 0001_conversations

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE welcomes (
    convo_id text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    -- squawk-ignore prefer-bigint-over-int -- counts the Welcomes of one commit
    ordinal integer NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT welcomes_pkey PRIMARY KEY (convo_id, epoch, ordinal),
    CONSTRAINT welcomes_convo_id_fkey FOREIGN KEY (convo_id) REFERENCES conversations (id) ON DELETE CASCADE,
    CONSTRAINT welcomes_numbers_check CHECK (epoch >= 1 AND ordinal >= 1)
);

COMMENT ON TABLE welcomes IS 'Each Welcome (RFC 9420 12.4.3.1) once: for 100 members it is 29 KB.
tenant: convo_id';
COMMENT ON COLUMN welcomes.epoch IS 'The epoch that its recipients join.';
COMMENT ON COLUMN welcomes.ordinal IS 'Which of the Welcomes of one commit: 1, 2, ...';

ALTER TABLE welcomes ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE welcome_recipients (
    convo_id text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    -- squawk-ignore prefer-bigint-over-int -- counts the Welcomes of one commit
    ordinal integer NOT NULL,
    recipient_did text COLLATE "C" NOT NULL,
    key_package_ref bytea NOT NULL,
    acknowledged_at timestamptz,
    CONSTRAINT welcome_recipients_pkey PRIMARY KEY (convo_id, epoch, recipient_did, key_package_ref),
    CONSTRAINT welcome_recipients_welcome_fkey FOREIGN KEY (convo_id, epoch, ordinal) REFERENCES welcomes (convo_id, epoch, ordinal) ON DELETE CASCADE
);

COMMENT ON TABLE welcome_recipients IS 'For whom a Welcome is: a row for each device, since each device claimed its own key package.
tenant: convo_id, recipient_did
actor: recipient_did
admits: convo_id, epoch, ordinal of welcomes';

CREATE INDEX welcome_recipients_pending_idx ON welcome_recipients (recipient_did, convo_id, epoch, key_package_ref) WHERE acknowledged_at IS NULL;

CREATE TABLE group_infos (
    convo_id text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    data bytea NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT group_infos_pkey PRIMARY KEY (convo_id),
    CONSTRAINT group_infos_convo_id_fkey FOREIGN KEY (convo_id) REFERENCES conversations (id) ON DELETE CASCADE,
    CONSTRAINT group_infos_epoch_check CHECK (epoch >= 1)
);

COMMENT ON TABLE group_infos IS 'The newest GroupInfo (RFC 9420 12.4.3) of a conversation, for external joins; its epoch only moves forward.
tenant: convo_id';

ALTER TABLE group_infos ALTER COLUMN data SET STORAGE EXTERNAL;
