-- What the rule `actor` finds, and what it must not.

-- name: member_beside_the_messages :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id
 WHERE s.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL;

-- name: asked_for_is_not_proved :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [-- actor: reader_did] :reader_did stands in no equality with an owner
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id AND s.sender_did = :reader_did;

-- name: left_long_ago :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [members] members AS m names :reader_did, but its left_at says whether that has ended
SELECT s.seq
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id
 WHERE s.convo_id = :convo_id AND m.member_did = :reader_did;

-- name: member_who_has_left :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [members] members AS m names :reader_did, but its left_at says whether that has ended
SELECT s.seq
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id
 WHERE s.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NOT NULL;

-- name: member_of_another_conversation :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [messages] messages AS s is not covered by what :reader_did may see or write
SELECT s.seq
  FROM messages AS s
 CROSS JOIN members AS m
 WHERE s.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL;

-- name: somebody_is_a_member :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [-- actor: reader_did] :reader_did stands in no equality with an owner
SELECT s.seq
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id
 WHERE s.convo_id = :convo_id AND m.member_did = s.sender_did AND m.left_at IS NULL AND s.id <> :reader_did;

-- name: by_equality_with_another_column :many
-- tenant: convo_id
-- actor: sender_did
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id AND m.member_did = s.sender_did
 WHERE s.convo_id = :convo_id AND s.sender_did = :sender_did AND m.left_at IS NULL;

-- name: or_beside_the_member :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [s.seq] this side of the OR is true without :reader_did
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND (s.seq = 1
        OR EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = s.convo_id AND m.member_did = :reader_did AND m.left_at IS NULL));

-- name: a_parameter_that_lets_pass :many
-- tenant: convo_id
-- actor: reader_did
-- Takes: Any
-- Finds: [:admin] this side of the OR is true without :reader_did
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND (:admin::boolean
        OR EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL));

-- name: or_inside_the_members_row :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [m.read_seq] this side of the OR is true without :reader_did
SELECT s.seq
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id
 WHERE s.convo_id = :convo_id AND (m.member_did = :reader_did OR m.read_seq > 0) AND m.left_at IS NULL;

-- name: owner_or_grant :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: nothing
SELECT d.title
  FROM collections AS c
  JOIN documents AS d ON d.collection_id = c.id
 WHERE c.id = :id
   AND (c.owner_id = :user_id
        OR EXISTS (SELECT FROM grants AS g WHERE g.collection_id = c.id AND g.user_id = :user_id));

-- name: owner_or_grant_or_public :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: nothing
SELECT d.title
  FROM collections AS c
  JOIN documents AS d ON d.collection_id = c.id
 WHERE c.id = :id
   AND (c.owner_id = :user_id
        OR c.is_public
        OR EXISTS (SELECT FROM grants AS g WHERE g.collection_id = c.id AND g.user_id = :user_id));

-- name: owner_or_public :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: nothing
SELECT d.title
  FROM documents AS d
 WHERE d.collection_id = :id
   AND EXISTS (SELECT FROM collections AS c WHERE c.id = :id AND (c.owner_id = :user_id OR c.is_public));

-- name: owner_or_not_public :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [NOT] this side of the OR is true without :user_id
SELECT c.title FROM collections AS c WHERE c.id = :id AND (c.owner_id = :user_id OR NOT c.is_public);

-- name: owner_or_something_that_nobody_called_public :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [c.title] this side of the OR is true without :user_id
SELECT c.title FROM collections AS c WHERE c.id = :id AND (c.owner_id = :user_id OR c.title = 'public');

-- name: another_collection_is_public :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [EXISTS] this side of the OR is true without :user_id
SELECT c.title
  FROM collections AS c
 WHERE c.id = :id
   AND (c.owner_id = :user_id OR EXISTS (SELECT FROM collections AS other WHERE other.is_public));

-- name: public_and_the_actor_not_asked :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [-- actor: user_id] :user_id stands in no equality with an owner
SELECT c.title FROM collections AS c WHERE c.id = :id AND c.is_public AND c.title <> :user_id::text;

-- name: who_may_read_writes :rows
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [c.is_public] this side of the OR is true without :user_id
UPDATE documents AS d
   SET title = 'mine'
  FROM collections AS c
 WHERE d.collection_id = c.id AND c.id = :id AND (c.owner_id = :user_id OR c.is_public);

-- name: who_may_read_writes_the_collection :rows
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [c.is_public] this side of the OR is true without :user_id
UPDATE collections AS c SET title = 'mine' WHERE c.id = :id AND (c.owner_id = :user_id OR c.is_public);

-- name: who_may_read_inserts :rows
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [documents] the row inserted into documents is not covered by what :user_id may see or write
INSERT INTO documents (collection_id, id, title, pages, tags, weight, meta)
SELECT c.id, :document_id::uuid, 'mine', 0, '{}', 0, '{}'
  FROM collections AS c
 WHERE c.id = :id AND (c.owner_id = :user_id OR c.is_public);

-- name: who_may_read_deletes_by_a_cte :rows
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [documents] documents AS d is not covered by what :user_id may see or write
WITH readable AS (
    SELECT c.id FROM collections AS c WHERE c.id = :id AND (c.owner_id = :user_id OR c.is_public)
)
DELETE FROM documents AS d USING readable WHERE d.collection_id = readable.id;

-- name: owner_or_a_grant_elsewhere :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [EXISTS] this side of the OR is true without :user_id
SELECT c.title
  FROM collections AS c
 WHERE c.id = :id
   AND (c.owner_id = :user_id OR EXISTS (SELECT FROM grants AS g WHERE g.user_id = :user_id));

-- name: owner_or_not_the_grant :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [NOT] this side of the OR is true without :user_id
SELECT c.title
  FROM collections AS c
 WHERE c.id = :id
   AND (c.owner_id = :user_id
        OR NOT EXISTS (SELECT FROM grants AS g WHERE g.collection_id = c.id AND g.user_id = :user_id));

-- name: correlated_member :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND EXISTS (SELECT FROM members AS m
                WHERE m.convo_id = s.convo_id AND m.member_did = :reader_did AND m.left_at IS NULL);

-- name: member_of_the_same_parameter :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND EXISTS (SELECT FROM members AS m
                WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL);

-- name: exists_a_count :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [messages] messages AS s is not covered
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND EXISTS (SELECT count(*) FROM members AS m
                WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL);

-- name: not_a_member :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [messages] messages AS s is not covered
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND NOT EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL);

-- name: in_the_members_conversations :many
-- tenant: reader_did
-- actor: reader_did
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id IN (SELECT m.convo_id FROM members AS m WHERE m.member_did = :reader_did AND m.left_at IS NULL);

-- name: in_an_array_of_the_members_conversations :many
-- tenant: reader_did
-- actor: reader_did
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = ANY (ARRAY (SELECT m.convo_id FROM members AS m
                                 WHERE m.member_did = :reader_did AND m.left_at IS NULL));

-- name: the_members_only_conversation :many
-- tenant: reader_did
-- actor: reader_did
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = (SELECT m.convo_id FROM members AS m
                      WHERE m.member_did = :reader_did AND m.left_at IS NULL LIMIT 1);

-- name: outer_join_from_the_member :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
SELECT s.seq
  FROM members AS m
  LEFT JOIN messages AS s ON s.convo_id = :convo_id
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL;

-- name: outer_join_to_the_member :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [messages] messages AS s is not covered
SELECT s.seq
  FROM messages AS s
  LEFT JOIN members AS m ON m.convo_id = s.convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
 WHERE s.convo_id = :convo_id;

-- name: outer_join_that_shows_only_members :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
  LEFT JOIN members AS m ON m.convo_id = s.convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
 WHERE s.convo_id = :convo_id AND m.read_seq >= 0;

-- name: outer_joins_in_a_chain :many
-- tenant: convo_ids
-- actor: reader_did
-- Takes: Any
-- Finds: nothing
SELECT given.convo_id, s.seq
  FROM unnest(:convo_ids::text[]) AS given (convo_id)
  LEFT JOIN members AS m ON m.convo_id = given.convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
  LEFT JOIN LATERAL (SELECT s.seq FROM messages AS s WHERE s.convo_id = m.convo_id LIMIT 5) AS s ON true;

-- name: outer_joins_side_by_side :many
-- tenant: convo_ids
-- actor: reader_did
-- Takes: Any
-- Finds: [messages] messages AS s is not covered
SELECT given.convo_id, s.seq
  FROM unnest(:convo_ids::text[]) AS given (convo_id)
  LEFT JOIN members AS m ON m.convo_id = given.convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
  LEFT JOIN LATERAL (SELECT s.seq FROM messages AS s WHERE s.convo_id = given.convo_id LIMIT 5) AS s ON true;

-- name: full_join_with_the_member :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [messages] messages AS s is not covered
SELECT s.seq
  FROM (SELECT s.seq, s.convo_id FROM messages AS s WHERE s.convo_id = :convo_id) AS s
  FULL JOIN (SELECT m.convo_id FROM members AS m
              WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL) AS m ON m.convo_id = s.convo_id;

-- name: member_of_any_of_these :many
-- tenant: convo_ids
-- actor: reader_did
-- Takes: Any
-- Finds: [messages] messages AS s is not covered
SELECT s.seq
  FROM messages AS s
 CROSS JOIN members AS m
 WHERE s.convo_id = ANY (:convo_ids::text[])
   AND m.convo_id = ANY (:convo_ids) AND m.member_did = :reader_did AND m.left_at IS NULL;

-- name: the_members_own_rows :many
-- tenant: did
-- actor: did
-- Finds: nothing
SELECT p.id FROM packages AS p WHERE p.did = :did;

-- name: nobody_in_the_select_list :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [conversations] conversations AS c is not covered
SELECT c.epoch,
       EXISTS (SELECT FROM members AS m
                WHERE m.convo_id = c.id AND m.member_did = :reader_did AND m.left_at IS NULL) AS is_member
  FROM conversations AS c
 WHERE c.id = :convo_id;

-- name: only_whether_i_am_a_member :value
-- tenant: convo_id
-- actor: reader_did
-- Returns: bool
-- Finds: nothing
SELECT EXISTS (SELECT FROM members AS m
                WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL) AS is_member;

-- name: counted_for_strangers_too :value
-- tenant: convo_id
-- actor: reader_did
-- Finds: [messages] messages AS s is not covered
SELECT (SELECT count(*) FROM messages AS s WHERE s.convo_id = :convo_id) AS messages
  FROM members AS m
 WHERE m.member_did = :reader_did AND m.left_at IS NULL;

-- name: counted_for_members :value
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
SELECT (SELECT count(*) FROM messages AS s WHERE s.convo_id = m.convo_id) AS messages
  FROM members AS m
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL;

-- name: union_with_a_loose_branch :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: [messages] messages AS t is not covered
SELECT s.seq
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id
 WHERE s.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
 UNION ALL
SELECT t.seq FROM messages AS t WHERE t.convo_id = :convo_id;

-- name: a_cte_that_admits :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
WITH admitted AS MATERIALIZED (
    SELECT m.convo_id FROM members AS m
     WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
)
SELECT s.seq FROM admitted JOIN messages AS s ON s.convo_id = admitted.convo_id;

-- name: a_cte_that_admits_without_a_column :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
WITH admitted AS MATERIALIZED (
    SELECT FROM members AS m WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
)
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id AND EXISTS (SELECT FROM admitted);

-- name: a_cte_that_admits_to_another :many
-- tenant: convo_id, other_id
-- actor: reader_did
-- Finds: [messages] messages AS s is not covered
WITH admitted AS MATERIALIZED (
    SELECT FROM members AS m WHERE m.convo_id = :other_id AND m.member_did = :reader_did AND m.left_at IS NULL
)
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id AND EXISTS (SELECT FROM admitted);

-- name: a_cte_that_admits_in_one_branch :many
-- tenant: convo_id
-- actor: reader_did
-- Takes: Any
-- Finds: [messages] messages AS s is not covered
WITH admitted AS MATERIALIZED (
    SELECT m.convo_id FROM members AS m
     WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
     UNION ALL
    SELECT :convo_id WHERE :admin::boolean
)
SELECT s.seq FROM admitted JOIN messages AS s ON s.convo_id = admitted.convo_id;

-- name: recursion_below_the_owners_row :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: nothing
WITH RECURSIVE below AS (
    SELECT d.collection_id, d.id
      FROM documents AS d
      JOIN collections AS c ON c.id = d.collection_id
     WHERE c.id = :id AND c.owner_id = :user_id
     UNION ALL
    SELECT d.collection_id, d.id
      FROM below JOIN documents AS d ON d.collection_id = below.collection_id AND d.parent_id = below.id
)
SELECT below.id FROM below;

-- name: recursion_out_of_the_owners_row :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [documents] documents AS d is not covered
WITH RECURSIVE below AS (
    SELECT d.collection_id, d.id
      FROM documents AS d
      JOIN collections AS c ON c.id = d.collection_id
     WHERE c.id = :id AND c.owner_id = :user_id
     UNION ALL
    SELECT d.collection_id, d.id FROM below JOIN documents AS d ON d.parent_id = below.id
)
SELECT below.id FROM below;

-- name: a_write_behind_a_lock :exec
-- tenant: convo_id
-- actor: sender_did
-- Finds: nothing
WITH locked AS MATERIALIZED (
    SELECT c.last_seq
      FROM conversations AS c
      JOIN members AS m ON m.convo_id = c.id
     WHERE c.id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL
       FOR UPDATE OF c
),
stored AS (
    INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, body)
    SELECT :convo_id, locked.last_seq + 1, :id, :sender_did, 'app', '' FROM locked
        ON CONFLICT (convo_id, id) DO UPDATE SET body = excluded.body
 RETURNING s.convo_id, s.seq
)
UPDATE conversations AS c SET last_seq = stored.seq FROM stored WHERE c.id = :convo_id;

-- name: a_write_beside_the_lock :exec
-- tenant: convo_id
-- actor: sender_did
-- Finds: [messages] the row inserted into messages is not covered
WITH locked AS MATERIALIZED (
    SELECT c.last_seq
      FROM conversations AS c
      JOIN members AS m ON m.convo_id = c.id
     WHERE c.id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL
       FOR UPDATE OF c
),
stored AS (
    INSERT INTO messages (convo_id, seq, id, sender_did, message_type, body)
    VALUES (:convo_id, 1, :id, :sender_did, 'app', '')
 RETURNING seq
)
UPDATE conversations AS c SET last_seq = stored.seq FROM locked, stored WHERE c.id = :convo_id;

-- name: a_write_into_another_tenant :exec
-- tenant: convo_id, other_id
-- actor: sender_did
-- Finds: [messages] the row inserted into messages is not covered
INSERT INTO messages (convo_id, seq, id, sender_did, message_type, body)
SELECT :other_id, 1, :id, :sender_did, 'app', ''
  FROM members AS m
 WHERE m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL;

-- name: nobody_admits_himself :exec
-- tenant: convo_id
-- actor: sender_did
-- Finds: [members] the row inserted into members is not covered
WITH joined AS (
    INSERT INTO members (convo_id, member_did) VALUES (:convo_id, :sender_did) RETURNING convo_id, member_did
)
UPDATE packages AS p SET data = '' FROM joined WHERE p.did = :sender_did;

-- name: admitted_by_his_own_insert :exec
-- tenant: convo_id
-- actor: sender_did
-- Finds: [-- actor: sender_did] :sender_did stands in no equality with an owner
WITH joined AS (
    INSERT INTO members (convo_id, member_did) VALUES (:convo_id, :sender_did) RETURNING convo_id, member_did
)
UPDATE messages AS s SET body = '' FROM joined WHERE s.convo_id = joined.convo_id AND joined.member_did = :sender_did;

-- name: ones_own_new_row :exec
-- tenant: did
-- actor: did
-- Takes: Any
-- Finds: nothing
INSERT INTO packages (did, id, data) VALUES (:did, :id, :data);

-- name: somebody_elses_new_row :exec
-- tenant: other_did
-- actor: did
-- Takes: Any
-- Finds: [packages] the row inserted into packages is not covered
INSERT INTO packages (did, id, data) SELECT :other_did, :id, p.data FROM packages AS p WHERE p.did = :did;

-- name: moved_to_another_tenant :exec
-- tenant: id, other_id
-- actor: user_id
-- Takes: Any
-- Finds: [collection_id] what documents.collection_id is set to is not covered
UPDATE documents AS d SET collection_id = :other_id
  FROM collections AS c
 WHERE c.id = :id AND c.owner_id = :user_id AND d.collection_id = c.id;

-- name: moved_between_ones_own :exec
-- tenant: id, other_id
-- actor: user_id
-- Takes: Any
-- Finds: nothing
UPDATE documents AS d SET collection_id = t.id
  FROM collections AS c, collections AS t
 WHERE c.id = :id AND c.owner_id = :user_id AND d.collection_id = c.id
   AND t.id = :other_id AND t.owner_id = :user_id;

-- name: a_write_that_returns_for_members :many
-- tenant: convo_id
-- actor: member_did
-- Finds: nothing
UPDATE members AS m SET read_seq = c.last_seq
  FROM conversations AS c
 WHERE c.id = m.convo_id AND m.convo_id = :convo_id AND m.member_did = :member_did AND m.left_at IS NULL
RETURNING m.read_seq, c.last_seq;

-- name: left_members_come_back_by_themselves :exec
-- tenant: convo_id
-- actor: member_did
-- Finds: [members] members AS m names :member_did, but its left_at says whether that has ended
UPDATE members AS m SET left_at = NULL WHERE m.convo_id = :convo_id AND m.member_did = :member_did;

-- name: a_table_without_tenants :many
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
SELECT k.label
  FROM members AS m
  JOIN kinds AS k ON k.kind = :kind
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL;

-- name: a_table_without_tenants_for_everybody :exec
-- tenant: did
-- actor: did
-- Finds: [-- actor: did] :did stands in no equality with an owner
WITH mine AS (
    SELECT p.id FROM packages AS p WHERE p.did = :did
)
UPDATE kinds AS k SET label = :label WHERE k.kind = :kind;

-- name: a_cut_parameter :many
-- tenant: did
-- actor: did
-- Finds: [-- actor: did] :did stands in no equality with an owner
SELECT p.id FROM packages AS p WHERE p.did = :did::varchar(3);

-- name: no_such_parameter :many
-- tenant: did
-- actor: reader_did
-- Finds: [-- actor: reader_did] reader_did is no parameter of this statement
SELECT p.id FROM packages AS p WHERE p.did = :did;

-- name: says_whether_for_its_caller :many
-- tenant: convo_id
-- actor: none (the caller decides)
-- Finds: nothing
SELECT c.epoch FROM conversations AS c WHERE c.id = :convo_id;

-- name: shown_to_strangers_beside_a_count :one
-- tenant: convo_id
-- actor: reader_did
-- Finds: [messages] messages AS s is not covered
SELECT count(*) AS me, (SELECT max(s.seq) FROM messages AS s WHERE s.convo_id = :convo_id) AS seq
  FROM members AS m
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL;

-- name: counted_among_what_is_found :one
-- tenant: convo_id
-- actor: reader_did
-- Finds: nothing
SELECT count(*) AS seen
  FROM members AS m
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL
   AND EXISTS (SELECT FROM messages AS s WHERE s.convo_id = :convo_id AND s.seq > m.read_seq);

-- name: a_row_from_a_count :exec
-- tenant: convo_id
-- actor: sender_did
-- Finds: [messages] the row inserted into messages is not covered
INSERT INTO messages (convo_id, seq, id, sender_did, message_type, body)
SELECT :convo_id, count(*), :id, :sender_did, 'app', ''
  FROM members AS m
 WHERE m.convo_id = :convo_id AND m.member_did = :sender_did AND m.left_at IS NULL;

-- name: a_new_tenant_of_ones_own :exec
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: nothing
WITH created AS (
    INSERT INTO collections (id, owner_id, title, is_public, meta)
    VALUES (:id, :user_id, :title, false, '{}')
        ON CONFLICT (id) DO NOTHING
 RETURNING id
)
INSERT INTO grants (collection_id, user_id, level) SELECT created.id, :other_id, 'read' FROM created;

-- name: a_new_tenant_of_somebody_else :exec
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [-- actor: user_id] :user_id stands in no equality
INSERT INTO collections (id, owner_id, title, is_public, meta)
VALUES (:id, :other_id, :user_id, false, '{}');

-- name: somebody_elses_tenant_taken_over :exec
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: [ON CONFLICT] the row of collections that is updated instead is not covered
INSERT INTO collections (id, owner_id, title, is_public, meta)
VALUES (:id, :user_id, :title, false, '{}')
    ON CONFLICT (id) DO UPDATE SET owner_id = excluded.owner_id;

-- name: ones_own_tenant_kept :exec
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: nothing
INSERT INTO collections AS c (id, owner_id, title, is_public, meta)
VALUES (:id, :user_id, :title, false, '{}')
    ON CONFLICT (id) DO UPDATE SET title = excluded.title
 WHERE c.owner_id = excluded.owner_id;

-- name: granted_to_oneself :exec
-- tenant: collection_id
-- actor: user_id
-- Takes: Any
-- Finds: [-- actor: user_id] :user_id stands in no equality
INSERT INTO grants (collection_id, user_id, level) VALUES (:collection_id, :user_id, 'write');

-- name: granted_elsewhere_by_an_owner :exec
-- tenant: id, other_id
-- actor: user_id
-- Takes: Any
-- Finds: [grants] the row inserted into grants is not covered
INSERT INTO grants (collection_id, user_id, level)
SELECT :other_id, c.owner_id, 'write' FROM collections AS c WHERE c.id = :id AND c.owner_id = :user_id;

-- name: nobody_is_asked_where_the_header_says_so :many
-- tenant: convo_id
-- actor: reader_did unless admin (the sweep of an operator)
-- Finds: nothing
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND (:admin::boolean
        OR EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL));

-- name: waived_where_it_is_not_true :many
-- tenant: convo_id
-- actor: reader_did unless admin (the sweep of an operator)
-- Finds: [NOT] this side of the OR is true without :reader_did
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND (NOT :admin::boolean
        OR EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL));

-- name: waived_for_everybody :many
-- tenant: convo_id
-- actor: reader_did unless admin (the sweep of an operator)
-- Finds: [-- actor: reader_did unless admin (the sweep of an operator)] :reader_did stands in no equality with an owner
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id AND (:admin::boolean OR s.sender_did = :reader_did);

-- name: waived_by_what_is_not_asked :many
-- tenant: convo_id
-- actor: reader_did unless admin (the sweep of an operator)
-- Finds: [-- actor: reader_did unless admin (the sweep of an operator)] admin is no parameter of this statement
SELECT s.seq
  FROM messages AS s
  JOIN members AS m ON m.convo_id = s.convo_id
 WHERE s.convo_id = :convo_id AND m.member_did = :reader_did AND m.left_at IS NULL;

-- name: ones_own_letters :many
-- tenant: recipient_did
-- actor: recipient_did
-- Finds: nothing
SELECT l.convo_id, l.ordinal FROM letters AS l WHERE l.recipient_did = :recipient_did;

-- name: a_letter_outlives_membership :many
-- tenant: convo_id
-- actor: recipient_did
-- Finds: [messages] messages AS s is not covered
SELECT s.seq
  FROM letters AS l
  JOIN messages AS s ON s.convo_id = l.convo_id
 WHERE l.convo_id = :convo_id AND l.recipient_did = :recipient_did;

-- name: a_letter_that_exists_outlives_membership :many
-- tenant: convo_id
-- actor: recipient_did
-- Finds: [messages] messages AS s is not covered
SELECT s.seq
  FROM messages AS s
 WHERE s.convo_id = :convo_id
   AND EXISTS (SELECT FROM letters AS l WHERE l.convo_id = :convo_id AND l.recipient_did = :recipient_did);

-- name: a_letter_is_told_of_by_a_cte :many
-- tenant: convo_id
-- actor: recipient_did
-- Finds: [messages] messages AS s is not covered
WITH mine AS (
    SELECT l.convo_id FROM letters AS l WHERE l.convo_id = :convo_id AND l.recipient_did = :recipient_did
)
SELECT s.seq FROM mine JOIN messages AS s ON s.convo_id = mine.convo_id;

-- name: a_letters_body :many
-- tenant: recipient_did
-- actor: recipient_did
-- Finds: nothing
SELECT b.body
  FROM letters AS l
  JOIN bodies AS b ON b.convo_id = l.convo_id AND b.ordinal = l.ordinal
 WHERE l.recipient_did = :recipient_did;

-- name: another_letters_body :many
-- tenant: recipient_did
-- actor: recipient_did
-- Finds: [bodies] bodies AS b is not covered
SELECT b.body
  FROM letters AS l
  JOIN bodies AS b ON b.convo_id = l.convo_id AND b.ordinal >= l.ordinal
 WHERE l.recipient_did = :recipient_did;

-- name: a_letters_body_where_there_is_no_letter :many
-- tenant: convo_id
-- actor: recipient_did
-- Finds: [bodies] bodies AS b is not covered
SELECT b.body
  FROM bodies AS b
  LEFT JOIN letters AS l ON b.convo_id = l.convo_id AND b.ordinal = l.ordinal AND l.recipient_did = :recipient_did
 WHERE b.convo_id = :convo_id;

-- name: a_letters_body_is_only_read :rows
-- tenant: convo_id
-- actor: recipient_did
-- Finds: [bodies] bodies AS b is not covered
UPDATE bodies AS b SET body = ''
  FROM letters AS l
 WHERE l.recipient_did = :recipient_did
   AND b.convo_id = :convo_id AND b.convo_id = l.convo_id AND b.ordinal = l.ordinal;

-- name: a_letter_before_one_has_left :many
-- tenant: recipient_did
-- actor: recipient_did
-- Finds: nothing
SELECT l.ordinal
  FROM letters AS l
 WHERE l.recipient_did = :recipient_did
   AND NOT EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = l.convo_id AND m.member_did = :recipient_did AND m.left_at IS NOT NULL);

-- name: a_letter_whenever_one_has_been_there :many
-- tenant: recipient_did
-- actor: recipient_did
-- Finds: [members] members AS m names :recipient_did, but its left_at says whether that has ended
SELECT l.ordinal
  FROM letters AS l
 WHERE l.recipient_did = :recipient_did
   AND EXISTS (SELECT FROM members AS m WHERE m.convo_id = l.convo_id AND m.member_did = :recipient_did);

-- name: a_letter_before_one_has_left_another :many
-- tenant: recipient_did
-- actor: recipient_did
-- Finds: [members] members AS m names :recipient_did, but its left_at says whether that has ended
SELECT l.ordinal
  FROM letters AS l
 WHERE l.recipient_did = :recipient_did
   AND NOT EXISTS (SELECT FROM members AS m WHERE m.member_did = :recipient_did AND m.left_at IS NOT NULL);

-- name: a_letter_while_others_are_there :many
-- tenant: recipient_did
-- actor: recipient_did
-- Finds: [members] members AS m is not covered
SELECT l.ordinal
  FROM letters AS l
 WHERE l.recipient_did = :recipient_did
   AND EXISTS (SELECT FROM members AS m
                WHERE m.convo_id = l.convo_id AND m.member_did <> :recipient_did AND m.left_at IS NULL);

-- name: ones_own_letters_and_those_of_ones_conversations :many
-- tenant: convo_id
-- actor: did
-- Finds: nothing
SELECT l.ordinal
  FROM letters AS l
 WHERE l.convo_id = :convo_id
   AND (l.recipient_did = :did
        OR EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = l.convo_id AND m.member_did = :did AND m.left_at IS NULL));

-- name: ones_own_letters_and_those_of_the_first :many
-- tenant: convo_id
-- actor: did
-- Finds: [l.ordinal] this side of the OR is true without :did
SELECT l.recipient_did
  FROM letters AS l
 WHERE l.convo_id = :convo_id AND (l.recipient_did = :did OR l.ordinal = 1);

-- name: a_letter_beside_a_table_without_tenants :many
-- tenant: recipient_did
-- actor: recipient_did
-- Finds: nothing
SELECT k.label FROM letters AS l JOIN kinds AS k ON k.kind = :kind WHERE l.recipient_did = :recipient_did;

-- name: public_where_somebody_is_asked :many
-- tenant: id
-- actor: user_id
-- Takes: Any
-- Finds: nothing
SELECT c.title
  FROM collections AS c
  JOIN grants AS g ON g.user_id = :user_id
 WHERE c.id = :id AND c.is_public;
