-- Members of a conversation, and how far each has read.
--
-- Who changes the members locks the conversation's row first, as those do who send to it.

-- name: add_member :one
-- Add a member, or one who left again; an active one stays as it is. Nothing is unread.
-- tenant: convo_id
-- actor: none (who may add is for its caller to decide)
-- index: conversations_pkey, members_pkey
WITH locked AS MATERIALIZED (
    SELECT c.last_seq, c.app_count FROM conversations AS c WHERE c.id = :convo_id FOR NO KEY UPDATE
)
INSERT INTO members AS m (convo_id, member_did, joined_at, read_seq, read_app_count)
SELECT :convo_id, :member_did, statement_timestamp(), locked.last_seq, locked.app_count
  FROM locked
    ON CONFLICT (convo_id, member_did) DO UPDATE
   SET joined_at = CASE WHEN m.left_at IS NULL THEN m.joined_at ELSE excluded.joined_at END,
       read_seq = CASE WHEN m.left_at IS NULL THEN m.read_seq ELSE excluded.read_seq END,
       read_app_count = CASE WHEN m.left_at IS NULL THEN m.read_app_count ELSE excluded.read_app_count END,
       left_at = NULL
RETURNING m.convo_id, m.member_did, m.joined_at, m.left_at, m.read_seq;

-- name: remove_member :value
-- End a membership; the Welcomes that still wait for this member go with it.
-- tenant: convo_id
-- actor: none (who may remove is for its caller to decide)
-- index: conversations_pkey, members_pkey, members_member_did_idx, welcome_recipients_pending_idx, welcome_recipients_pkey
WITH locked AS MATERIALIZED (
    SELECT c.id FROM conversations AS c WHERE c.id = :convo_id FOR NO KEY UPDATE
),
parted AS (
    UPDATE members AS m
       SET left_at = statement_timestamp()
      FROM locked
     WHERE m.convo_id = :convo_id AND m.member_did = :member_did AND m.left_at IS NULL
 RETURNING m.member_did
),
withdrawn AS ( -- after the member's row, as in a commit: no deadlock
    DELETE FROM welcome_recipients AS wr
     USING parted
     WHERE wr.convo_id = :convo_id AND wr.recipient_did = parted.member_did AND wr.acknowledged_at IS NULL
)
SELECT EXISTS (SELECT FROM parted) AS removed;

-- name: is_member :value
-- Whether this DID is an active member.
-- tenant: convo_id
-- actor: none (whether this is a member is what it answers)
-- index: members_pkey, members_member_did_idx
SELECT EXISTS (
    SELECT FROM members AS m
     WHERE m.convo_id = :convo_id AND m.member_did = :member_did AND m.left_at IS NULL
) AS is_member;

-- name: list_members :page
-- The active members of a conversation, by DID.
-- tenant: convo_id
-- key: member_did
-- index: members_pkey
SELECT m.convo_id, m.member_did, m.joined_at, m.left_at, m.read_seq
  FROM members AS m
 WHERE m.convo_id = :convo_id
   AND m.left_at IS NULL
   AND m.member_did > coalesce(:cursor_member_did::text, '')
 ORDER BY m.member_did
 LIMIT :limit;

-- name: get_membership :maybe
-- The membership of one DID, also of one who left.
-- tenant: convo_id
-- actor: none (whether this is a member is what it answers)
-- index: members_pkey
SELECT m.convo_id, m.member_did, m.joined_at, m.left_at, m.read_seq
  FROM members AS m
 WHERE m.convo_id = :convo_id AND m.member_did = :member_did;

-- name: update_unread_count :value
-- Move a member's mark so that so many more (or, below 0, fewer) messages are unread.
-- The mark stays between what retention removed and the newest message. A send of the member's
-- own may have moved the mark past what this statement's snapshot counts, hence the greatest().
-- tenant: convo_id
-- actor: member_did
-- index: members_pkey, members_member_did_idx, conversations_pkey
UPDATE members AS m
   SET read_app_count = greatest(
           c.trimmed_app_count,
           least(greatest(c.app_count, m.read_app_count),
                 greatest(m.read_app_count, c.trimmed_app_count) - :increment::bigint))
  FROM conversations AS c
 WHERE c.id = :convo_id
   AND m.convo_id = :convo_id AND m.member_did = :member_did AND m.left_at IS NULL
RETURNING greatest(c.app_count, m.read_app_count) - m.read_app_count AS unread_count;

-- name: reset_unread_count :value
-- Mark all as read.
-- tenant: convo_id
-- actor: member_did
-- index: members_pkey, members_member_did_idx, conversations_pkey
UPDATE members AS m
   SET read_seq = greatest(m.read_seq, c.last_seq),
       read_app_count = greatest(m.read_app_count, c.app_count)
  FROM conversations AS c
 WHERE c.id = :convo_id
   AND m.convo_id = :convo_id AND m.member_did = :member_did AND m.left_at IS NULL
RETURNING greatest(c.app_count, m.read_app_count) - m.read_app_count AS unread_count;

-- name: mark_read :value
-- Mark all up to a message as read; never back.
-- tenant: convo_id
-- actor: member_did
-- index: members_pkey, members_member_did_idx, conversations_pkey, messages_pkey
UPDATE members AS m
   SET read_seq = greatest(m.read_seq, least(:seq::bigint, c.last_seq)),
       read_app_count = greatest(m.read_app_count, (
           SELECT s.app_number
             FROM messages AS s
            WHERE s.convo_id = :convo_id AND s.seq <= :seq
            ORDER BY s.seq DESC
            LIMIT 1))
  FROM conversations AS c
 WHERE c.id = :convo_id
   AND m.convo_id = :convo_id AND m.member_did = :member_did AND m.left_at IS NULL
RETURNING greatest(c.app_count, m.read_app_count) - greatest(m.read_app_count, c.trimmed_app_count) AS unread_count;
