-- Messages of a conversation, numbered 1, 2, 3, ... by seq.
--
-- Whoever appends locks the conversation's row first, and the sender's: what follows in the
-- statement sees what that lock waited for. Readers begin with the reader's own member row and
-- outer-join the messages: no row means "not a member", a row of NULLs "nothing there".

-- name: append_message :maybe
-- Append a message, or return the one that its sender already stored under this id.
-- No row means refused: no such conversation, not a member, another epoch, or a taken id.
-- tenant: convo_id
-- actor: sender_did
-- index: conversations_pkey, members_pkey, members_member_did_idx, messages_convo_id_id_key
WITH locked AS MATERIALIZED (
    SELECT c.last_seq, c.app_count, c.last_message_at
      FROM conversations AS c
      JOIN members AS m ON m.convo_id = c.id
     WHERE c.id = :convo_id
       AND c.current_epoch >= :epoch::bigint
       AND c.current_epoch - :epoch_window::bigint <= :epoch::bigint
       AND m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL
       FOR NO KEY UPDATE OF c, m
),
stored AS (
    INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, epoch, ciphertext, sent_at, app_number)
    SELECT :convo_id, locked.last_seq + 1, :message_id, :sender_did, :message_type::text, :epoch, :ciphertext,
           greatest(statement_timestamp(), locked.last_message_at), locked.app_count + (:message_type = 'app')::int
      FROM locked
        ON CONFLICT (convo_id, id) DO UPDATE SET id = excluded.id
     WHERE s.sender_did = excluded.sender_did
       AND s.message_type = excluded.message_type
       AND (s.ciphertext = excluded.ciphertext OR s.deleted_at IS NOT NULL)
 RETURNING s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at, s.app_number
),
advanced AS (
    UPDATE conversations AS c
       SET last_seq = stored.seq, app_count = stored.app_number, last_message_at = stored.sent_at
      FROM locked
      JOIN stored ON stored.seq = locked.last_seq + 1
     WHERE c.id = :convo_id
),
read AS (
    UPDATE members AS m
       SET read_seq = stored.seq, read_app_count = stored.app_number
      FROM locked
      JOIN stored ON stored.seq = locked.last_seq + 1
     WHERE m.convo_id = :convo_id AND m.member_did = :sender_did
)
SELECT stored.convo_id, stored.seq, stored.id, stored.sender_did, stored.message_type, stored.epoch, stored.ciphertext, stored.sent_at, stored.deleted_at
  FROM stored
 UNION ALL
-- A retry after the epoch moved on: already stored, and not for the new epoch to refuse.
SELECT s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id
 WHERE NOT EXISTS (SELECT FROM locked)
   AND s.convo_id = :convo_id AND s.id = :message_id
   AND s.sender_did = :sender_did
   AND s.message_type = :message_type
   AND (s.ciphertext = :ciphertext OR s.deleted_at IS NOT NULL)
   AND m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL;

-- name: append_messages :many
-- Append a batch, in its order and without gaps, or nothing of it.
-- Those that their sender already stored are returned as they are. Fewer rows than were given
-- means refused, and nothing stored. An id that another transaction stored while this one waited
-- for the lock is a unique violation: a clause that passed over it would leave a gap in seq.
-- tenant: convo_id
-- actor: sender_did
-- index: conversations_pkey, members_pkey, members_member_did_idx, messages_convo_id_id_key
-- order: ordinal (the place of one message among those given, fresh or existing)
WITH locked AS MATERIALIZED (
    SELECT c.last_seq, c.app_count, c.last_message_at
      FROM conversations AS c
      JOIN members AS m ON m.convo_id = c.id
     WHERE c.id = :convo_id
       AND c.current_epoch = :epoch::bigint
       AND m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL
       FOR NO KEY UPDATE OF c, m
),
given AS MATERIALIZED (
    SELECT g.id, g.message_type, g.ciphertext, g.ordinal
      FROM unnest(:message_ids::text[], :message_types::text[], :ciphertexts::bytea[])
           WITH ORDINALITY AS g (id, message_type, ciphertext, ordinal)
),
existing AS MATERIALIZED (
    SELECT given.ordinal, s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at,
           s.sender_did = :sender_did
           AND s.message_type = given.message_type
           AND (s.ciphertext = given.ciphertext OR s.deleted_at IS NOT NULL) AS is_own
      FROM given
     CROSS JOIN LATERAL (
           SELECT twin.convo_id, twin.seq, twin.id, twin.sender_did, twin.message_type, twin.epoch, twin.ciphertext, twin.sent_at, twin.deleted_at
             FROM messages AS twin
            WHERE twin.convo_id = :convo_id AND twin.id = given.id
            LIMIT 1) AS s -- looked up one by one: the planner would else read a whole conversation
     WHERE EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL)
),
fresh AS MATERIALIZED (
    SELECT given.ordinal, given.id, given.message_type, given.ciphertext,
           row_number() OVER so_far AS number,
           count(*) FILTER (WHERE given.message_type = 'app') OVER so_far AS app_number
      FROM given
     WHERE NOT EXISTS (SELECT FROM existing WHERE existing.ordinal = given.ordinal)
       AND NOT EXISTS (SELECT FROM existing WHERE NOT existing.is_own)
    WINDOW so_far AS (ORDER BY given.ordinal ROWS UNBOUNDED PRECEDING)
),
stored AS (
    INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, epoch, ciphertext, sent_at, app_number)
    SELECT :convo_id, locked.last_seq + fresh.number, fresh.id, :sender_did, fresh.message_type, :epoch, fresh.ciphertext,
           greatest(statement_timestamp(), locked.last_message_at), locked.app_count + fresh.app_number
      FROM locked
     CROSS JOIN fresh
     ORDER BY fresh.number
 RETURNING s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at, s.app_number
),
newest AS (
    SELECT stored.seq, stored.app_number, stored.sent_at FROM stored ORDER BY stored.seq DESC LIMIT 1
),
advanced AS (
    UPDATE conversations AS c
       SET last_seq = newest.seq, app_count = newest.app_number, last_message_at = newest.sent_at
      FROM newest
     WHERE c.id = :convo_id
),
read AS (
    UPDATE members AS m
       SET read_seq = newest.seq, read_app_count = newest.app_number
      FROM newest
     WHERE m.convo_id = :convo_id AND m.member_did = :sender_did
),
answered AS (
    SELECT fresh.ordinal, stored.convo_id, stored.seq, stored.id, stored.sender_did, stored.message_type, stored.epoch, stored.ciphertext, stored.sent_at, stored.deleted_at
      FROM stored
      JOIN fresh ON fresh.id = stored.id
     UNION ALL
    SELECT existing.ordinal, existing.convo_id, existing.seq, existing.id, existing.sender_did, existing.message_type, existing.epoch, existing.ciphertext, existing.sent_at, existing.deleted_at
      FROM existing
     WHERE NOT EXISTS (SELECT FROM existing AS other WHERE NOT other.is_own)
)
SELECT answered.convo_id, answered.seq, answered.id, answered.sender_did, answered.message_type, answered.epoch, answered.ciphertext, answered.sent_at, answered.deleted_at
  FROM answered
 ORDER BY answered.ordinal;

-- name: lock_conversation :exec
-- Wait for those who append to a conversation, so that the next statement sees what they stored.
-- tenant: convo_id
-- index: conversations_pkey
SELECT FROM conversations AS c WHERE c.id = :convo_id FOR NO KEY UPDATE;

-- name: explain_refusal :maybe
-- Why these messages, or this commit, were refused. No row: there is no such conversation.
-- tenant: convo_id
-- actor: none (whether the sender is a member is what it answers)
-- index: conversations_pkey, members_pkey, members_member_did_idx, messages_convo_id_id_key
SELECT c.current_epoch,
       EXISTS (SELECT FROM members AS m
                WHERE m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL) AS is_member,
       found.taken,
       found.own
  FROM conversations AS c
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE NOT same.is_own) AS taken,
              count(*) FILTER (WHERE same.is_own) AS own
         FROM (SELECT s.sender_did = :sender_did
                      AND s.message_type = given.message_type
                      AND (s.ciphertext = given.ciphertext OR s.deleted_at IS NOT NULL) AS is_own
                 FROM unnest(:message_ids::text[], :message_types::text[], :ciphertexts::bytea[])
                      AS given (id, message_type, ciphertext)
                CROSS JOIN LATERAL (
                      SELECT twin.sender_did, twin.message_type, twin.ciphertext, twin.deleted_at
                        FROM messages AS twin
                       WHERE twin.convo_id = :convo_id AND twin.id = given.id
                       LIMIT 1) AS s) AS same) AS found
 WHERE c.id = :convo_id;

-- name: get_message :maybe
-- One message, by the id that its sender chose.
-- tenant: convo_id
-- actor: reader_did
-- index: members_pkey, members_member_did_idx, messages_convo_id_id_key
SELECT s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at
  FROM members AS r
  LEFT JOIN messages AS s ON s.convo_id = :convo_id AND s.id = :message_id
 WHERE r.convo_id = :convo_id AND r.member_did = :reader_did AND r.left_at IS NULL;

-- name: list_messages :page
-- Newest first, below a sequence number; an index range of `limit` rows whatever the history.
-- tenant: convo_id
-- actor: reader_did
-- key: seq
-- index: members_pkey, members_member_did_idx, messages_pkey
SELECT page.convo_id, page.seq, page.id, page.sender_did, page.message_type, page.epoch, page.ciphertext, page.sent_at, page.deleted_at
  FROM members AS r
  LEFT JOIN LATERAL (
       SELECT s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at
         FROM messages AS s
        WHERE s.convo_id = :convo_id
          AND s.seq < coalesce(:cursor_seq, 9223372036854775807)
        ORDER BY s.seq DESC
        LIMIT :limit) AS page ON true
 WHERE r.convo_id = :convo_id AND r.member_did = :reader_did AND r.left_at IS NULL
 ORDER BY page.seq DESC;

-- name: list_messages_since :many
-- Oldest first, above a sequence number.
-- No row means refused: not a member, or retention has removed messages above that number.
-- tenant: convo_id
-- actor: reader_did
-- index: members_pkey, members_member_did_idx, conversations_pkey, messages_pkey
SELECT page.convo_id, page.seq, page.id, page.sender_did, page.message_type, page.epoch, page.ciphertext, page.sent_at, page.deleted_at
  FROM members AS r
  JOIN conversations AS c ON c.id = r.convo_id
  LEFT JOIN LATERAL (
       SELECT s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at
         FROM messages AS s
        WHERE s.convo_id = :convo_id
          AND s.seq > :after_seq::bigint
        ORDER BY s.seq
        LIMIT :limit) AS page ON true
 WHERE r.convo_id = :convo_id AND r.member_did = :reader_did AND r.left_at IS NULL
   AND c.id = :convo_id
   AND c.trimmed_seq <= :after_seq
 ORDER BY page.seq;

-- name: get_trimmed_seq :maybe
-- How far retention has gone, for a member whom list_messages_since refused.
-- tenant: convo_id
-- actor: reader_did
-- index: members_pkey, members_member_did_idx, conversations_pkey
SELECT c.trimmed_seq
  FROM members AS r
  JOIN conversations AS c ON c.id = r.convo_id
 WHERE r.convo_id = :convo_id AND r.member_did = :reader_did AND r.left_at IS NULL
   AND c.id = :convo_id;

-- name: read_new_messages :many
-- What is new in many conversations, in the order given; a row at least for each of them.
-- tenant: convo_id
-- actor: reader_did
-- not-null: convo_id (both arrays are of one length: list_new_messages makes them of one mapping)
-- index: members_pkey, members_member_did_idx, conversations_pkey, messages_pkey
SELECT position.convo_id,
       r.member_did IS NOT NULL AS is_member,
       position.after_seq < c.trimmed_seq AS trimmed,
       page.seq, page.id, page.sender_did, page.message_type, page.epoch, page.ciphertext, page.sent_at, page.deleted_at
  FROM unnest(:convo_ids::text[], :after_seqs::bigint[]) WITH ORDINALITY AS position (convo_id, after_seq, ordinal)
  LEFT JOIN LATERAL (
       SELECT m.convo_id, m.member_did
         FROM members AS m
        WHERE m.convo_id = position.convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
        LIMIT 1) AS r ON true
  LEFT JOIN conversations AS c ON c.id = r.convo_id
  LEFT JOIN LATERAL (
       SELECT s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at
         FROM messages AS s
        WHERE s.convo_id = r.convo_id
          AND s.seq > position.after_seq
        ORDER BY s.seq
        LIMIT :limit_per_conversation::bigint + 1) AS page ON true
 ORDER BY position.ordinal, page.seq;

-- name: list_commits :many
-- Commits from an epoch on, oldest first.
-- tenant: convo_id
-- actor: reader_did
-- index: members_pkey, members_member_did_idx, messages_convo_id_epoch_key
SELECT page.convo_id, page.seq, page.id, page.sender_did, page.message_type, page.epoch, page.ciphertext, page.sent_at, page.deleted_at
  FROM members AS r
  LEFT JOIN LATERAL (
       SELECT s.convo_id, s.seq, s.id, s.sender_did, s.message_type, s.epoch, s.ciphertext, s.sent_at, s.deleted_at
         FROM messages AS s
        WHERE s.convo_id = :convo_id
          AND s.message_type = 'commit'
          AND s.epoch >= :from_epoch
        ORDER BY s.epoch
        LIMIT :limit) AS page ON true
 WHERE r.convo_id = :convo_id AND r.member_did = :reader_did AND r.left_at IS NULL
 ORDER BY page.epoch;

-- name: get_message_count :value
-- Messages in a conversation: all ever sent less those that retention removed.
-- tenant: convo_id
-- index: conversations_pkey
SELECT c.last_seq - c.trimmed_count AS message_count FROM conversations AS c WHERE c.id = :convo_id;

-- name: delete_message :rows
-- Blank a message, once. The row stays: seq has no gap, the id stays taken. Commits stay whole.
-- tenant: convo_id
-- index: messages_convo_id_id_key
UPDATE messages AS s
   SET ciphertext = '', deleted_at = statement_timestamp()
 WHERE s.convo_id = :convo_id AND s.id = :message_id
   AND s.deleted_at IS NULL
   AND s.message_type <> 'commit';

-- name: delete_messages_before :value
-- Retention: remove the oldest messages below a sequence number, but no commit; move the marks.
-- A reader that has not come as far as trimmed_seq is told so by list_messages_since.
-- tenant: convo_id
-- index: conversations_pkey, messages_pkey
WITH locked AS MATERIALIZED (
    SELECT c.trimmed_seq FROM conversations AS c WHERE c.id = :convo_id FOR NO KEY UPDATE
),
doomed AS MATERIALIZED (
    SELECT s.seq
      FROM locked
     CROSS JOIN LATERAL (
           SELECT m.seq
             FROM messages AS m
            WHERE m.convo_id = :convo_id
              AND m.seq > locked.trimmed_seq
              AND m.seq < :seq
              AND m.message_type <> 'commit'
            ORDER BY m.seq
            LIMIT :limit) AS s
),
removed AS (
    DELETE FROM messages AS s
     WHERE s.convo_id = :convo_id
       AND s.seq > (SELECT locked.trimmed_seq FROM locked)
       AND s.seq <= (SELECT max(doomed.seq) FROM doomed)
       AND s.message_type <> 'commit'
 RETURNING s.seq, s.app_number
),
counted AS (
    SELECT count(*) AS messages, max(removed.seq) AS seq, max(removed.app_number) AS app_number FROM removed
),
marked AS (
    UPDATE conversations AS c
       SET trimmed_seq = counted.seq,
           trimmed_app_count = counted.app_number,
           trimmed_count = c.trimmed_count + counted.messages
      FROM counted
     WHERE c.id = :convo_id AND counted.messages > 0
)
SELECT counted.messages FROM counted;
