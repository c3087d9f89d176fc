-- Commits: the one place where a conversation's epoch and members change together.

-- name: apply_commit :maybe
-- Store a commit and all that it brings, if the conversation is still at its epoch.
-- No row means refused: no such conversation, another epoch, not a member, or a taken id.
-- tenant: convo_id
-- actor: sender_did unless external (an external commit is how one who is not a member comes in: RFC 9420 §12.4.3.2)
-- index: conversations_pkey, members_pkey, members_member_did_idx, messages_convo_id_id_key, welcome_recipients_pending_idx, group_infos_pkey, welcome_recipients_pkey
WITH locked AS MATERIALIZED (
    SELECT c.last_seq, c.app_count, c.last_message_at
      FROM conversations AS c
     WHERE c.id = :convo_id AND c.current_epoch = :expected_epoch::bigint
       FOR NO KEY UPDATE
),
committer AS MATERIALIZED (
    SELECT m.member_did
      FROM locked
     CROSS JOIN members AS m
     WHERE m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL
       FOR SHARE OF m
),
stored AS (
    INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, epoch, ciphertext, sent_at, app_number)
    SELECT :convo_id, locked.last_seq + 1, :message_id, :sender_did, 'commit', :expected_epoch, :commit,
           greatest(statement_timestamp(), locked.last_message_at), locked.app_count
      FROM locked
     WHERE :external::boolean OR EXISTS (SELECT FROM committer)
        ON CONFLICT (convo_id, id) DO NOTHING
 RETURNING s.convo_id, s.seq, s.epoch, s.sent_at, s.app_number
),
joined AS (
    INSERT INTO members AS m (convo_id, member_did, joined_at, read_seq, read_app_count)
    SELECT :convo_id, added.did, stored.sent_at, stored.seq, stored.app_number
      FROM stored
     CROSS JOIN unnest(:add_dids::text[]) AS added (did)
        ON CONFLICT (convo_id, member_did) DO UPDATE
       SET joined_at = excluded.joined_at, left_at = NULL,
           read_seq = excluded.read_seq, read_app_count = excluded.read_app_count
     WHERE m.left_at IS NOT NULL
),
parted AS (
    UPDATE members AS m
       SET left_at = stored.sent_at
      FROM stored
     WHERE m.convo_id = :convo_id AND m.member_did = ANY (:remove_dids::text[]) AND m.left_at IS NULL
 RETURNING m.member_did
),
withdrawn AS ( -- after the members' rows, as in remove_member: no deadlock
    DELETE FROM welcome_recipients AS wr
     USING parted
     WHERE wr.convo_id = :convo_id AND wr.recipient_did = parted.member_did AND wr.acknowledged_at IS NULL
),
welcomed AS (
    INSERT INTO welcomes (convo_id, epoch, ordinal, data)
    SELECT :convo_id, stored.epoch + 1, given.ordinal, given.data
      FROM stored
     CROSS JOIN unnest(:welcomes::bytea[]) WITH ORDINALITY AS given (data, ordinal)
),
addressed AS (
    INSERT INTO welcome_recipients (convo_id, epoch, ordinal, recipient_did, key_package_ref)
    SELECT :convo_id, stored.epoch + 1, given.ordinal, given.did, given.ref
      FROM stored
     CROSS JOIN unnest(:recipient_ordinals::int[], :recipient_dids::text[], :recipient_refs::bytea[])
           AS given (ordinal, did, ref)
),
informed AS (
    INSERT INTO group_infos AS g (convo_id, epoch, data, updated_at)
    SELECT :convo_id, stored.epoch + 1, :group_info::bytea, stored.sent_at
      FROM stored
     WHERE :group_info IS NOT NULL
        ON CONFLICT (convo_id) DO UPDATE
       SET epoch = excluded.epoch, data = excluded.data, updated_at = excluded.updated_at
     WHERE g.epoch < excluded.epoch
),
advanced AS (
    UPDATE conversations AS c
       SET current_epoch = stored.epoch + 1, last_seq = stored.seq,
           last_message_at = stored.sent_at, updated_at = stored.sent_at
      FROM stored
     WHERE c.id = :convo_id
)
SELECT stored.convo_id, stored.seq, stored.epoch + 1 AS epoch FROM stored;

-- name: find_commit :maybe
-- The receipt of a commit that this sender stored before, for one who asks again.
-- By its id first: the planner would else read a conversation's commits, of which it expects few.
-- tenant: convo_id
-- actor: sender_did
-- index: messages_convo_id_id_key, members_pkey, members_member_did_idx
WITH found AS MATERIALIZED (
    SELECT s.convo_id, s.seq, s.sender_did, s.message_type, s.epoch, s.ciphertext
      FROM messages AS s
     WHERE s.convo_id = :convo_id AND s.id = :message_id
)
SELECT found.convo_id, found.seq, found.epoch + 1 AS epoch
  FROM found
  JOIN members AS m ON m.convo_id = found.convo_id AND m.member_did = found.sender_did
 WHERE found.sender_did = :sender_did
   AND found.message_type = 'commit'
   AND found.ciphertext = :commit
   AND m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL;

-- name: get_group_info :maybe
-- The newest GroupInfo of a conversation.
-- tenant: convo_id
-- index: group_infos_pkey
SELECT g.convo_id, g.epoch, g.data, g.updated_at
  FROM group_infos AS g
 WHERE g.convo_id = :convo_id;
