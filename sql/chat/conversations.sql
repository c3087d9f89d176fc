-- Conversations: one row each, which orders the messages sent to it.

-- name: insert_conversation :maybe
-- Create a conversation with its first members. No row means that the id is taken.
-- tenant: convo_id
-- index: conversations_pkey
WITH created AS (
    INSERT INTO conversations AS c (id, creator_did, title)
    VALUES (:convo_id, :creator_did, :title)
        ON CONFLICT (id) DO NOTHING
 RETURNING c.id, c.creator_did, c.title, c.current_epoch, c.last_seq, c.app_count, c.trimmed_seq, c.last_message_at, c.created_at, c.updated_at
),
joined AS (
    INSERT INTO members (convo_id, member_did, joined_at)
    SELECT created.id, given.did, created.created_at
      FROM created
     CROSS JOIN unnest(:member_dids::text[]) AS given (did)
)
SELECT created.id, created.creator_did, created.title, created.current_epoch, created.last_seq, created.app_count, created.trimmed_seq, created.last_message_at, created.created_at, created.updated_at
  FROM created;

-- name: get_conversation :maybe
-- One conversation.
-- tenant: convo_id
-- index: conversations_pkey
SELECT c.id, c.creator_did, c.title, c.current_epoch, c.last_seq, c.app_count, c.trimmed_seq, c.last_message_at, c.created_at, c.updated_at
  FROM conversations AS c
 WHERE c.id = :convo_id;

-- name: list_conversations :page
-- The conversations that a member is active in, latest activity first.
-- Reads all of the member's conversations for each page: an index that carried their order would
-- be written by each message.
-- tenant: member_did
-- actor: member_did
-- key: last_message_at, id (the order changes with each message; bounded by what the member is in)
-- index: members_member_did_idx, conversations_pkey
SELECT c.id, c.creator_did, c.title, c.current_epoch, c.last_seq, c.app_count, c.trimmed_seq, c.last_message_at, c.created_at, c.updated_at,
       c.app_count - greatest(m.read_app_count, c.trimmed_app_count) AS unread_count
  FROM members AS m
  JOIN conversations AS c ON c.id = m.convo_id
 WHERE m.member_did = :member_did
   AND m.left_at IS NULL
   AND (c.last_message_at, c.id) < (coalesce(:cursor_last_message_at::timestamptz, 'infinity'), coalesce(:cursor_id::text, ''))
 ORDER BY c.last_message_at DESC, c.id DESC
 LIMIT :limit;

-- name: get_current_epoch :value
-- The MLS epoch that a conversation is at.
-- tenant: convo_id
-- index: conversations_pkey
SELECT c.current_epoch FROM conversations AS c WHERE c.id = :convo_id;

-- name: advance_epoch :maybe
-- Move a conversation from one epoch to a later one. No row means: it is not at that epoch.
-- tenant: convo_id
-- index: conversations_pkey
UPDATE conversations AS c
   SET current_epoch = :new_epoch, updated_at = statement_timestamp()
 WHERE c.id = :convo_id
   AND c.current_epoch = :expected_epoch
   AND :new_epoch::bigint > :expected_epoch
RETURNING c.id, c.creator_did, c.title, c.current_epoch, c.last_seq, c.app_count, c.trimmed_seq, c.last_message_at, c.created_at, c.updated_at;

-- name: delete_conversation :rows
-- Delete a conversation with its members, messages, Welcomes and GroupInfo (ON DELETE CASCADE).
-- tenant: convo_id
-- index: conversations_pkey
DELETE FROM conversations AS c WHERE c.id = :convo_id;
