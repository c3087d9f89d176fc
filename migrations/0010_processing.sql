-- Files that have changed, for workers to process.
-- depends: 0008_vault

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE processing_queue (
    user_id bigint NOT NULL,
    file_id uuid NOT NULL,
    priority bigint NOT NULL DEFAULT 1,
    changed bigint NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL DEFAULT now(),
    waiting_since timestamptz,
    ready_at timestamptz NOT NULL,
    lease_token uuid,
    attempts bigint NOT NULL DEFAULT 0,
    error text,
    dead_at timestamptz,
    CONSTRAINT processing_queue_pkey PRIMARY KEY (user_id, file_id),
    CONSTRAINT processing_queue_file_fkey FOREIGN KEY (user_id, file_id) REFERENCES files (user_id, id) ON DELETE CASCADE,
    CONSTRAINT processing_queue_priority_check CHECK (priority IN (0, 1, 2)),
    CONSTRAINT processing_queue_numbers_check CHECK (changed >= 1 AND attempts >= 0),
    CONSTRAINT processing_queue_dead_check CHECK (dead_at IS NULL OR lease_token IS NULL)
) WITH (fillfactor = 70);

COMMENT ON TABLE processing_queue IS 'One row for each file with changes that nobody has processed yet; processing deletes it.
tenant: user_id';
COMMENT ON COLUMN processing_queue.priority IS '2 before 1 before 0.';
COMMENT ON COLUMN processing_queue.changed IS 'Counts the changes: who completes says up to which.';
COMMENT ON COLUMN processing_queue.changed_at IS 'The last change.';
COMMENT ON COLUMN processing_queue.waiting_since IS 'The first change that no worker has taken; null where there is none.';
COMMENT ON COLUMN processing_queue.ready_at IS 'When a worker may take it: quiet for long enough, backed off for long enough, or, where it is leased, the end of the lease.';
COMMENT ON COLUMN processing_queue.lease_token IS 'Whose it is at present.';
COMMENT ON COLUMN processing_queue.attempts IS 'How often it was taken without being completed.';
COMMENT ON COLUMN processing_queue.error IS 'What the last failure said.';
COMMENT ON COLUMN processing_queue.dead_at IS 'Given up then, until the file changes: the dead letters.';

-- What is ready, of everybody and of one user; and the dead letters, the oldest first.
CREATE INDEX processing_queue_ready_idx ON processing_queue (priority, ready_at) WHERE dead_at IS NULL;
CREATE INDEX processing_queue_user_ready_idx ON processing_queue (user_id, priority, ready_at) WHERE dead_at IS NULL;
CREATE INDEX processing_queue_dead_idx ON processing_queue (user_id, dead_at, file_id) WHERE dead_at IS NOT NULL;
