-- What the rule `tenant` finds, and what it must not: 'Finds: [under the carets] in the message'.

-- name: key_and_parameter :many
-- tenant: convo_id
-- Finds: nothing
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id AND s.seq > 1;

-- name: parameter_on_the_left_and_cast :many
-- tenant: convo_id
-- Finds: nothing
SELECT s.seq FROM messages AS s WHERE :convo_id::text = s.convo_id;

-- name: key_dropped :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.id = :convo_id;

-- name: key_beside_or :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id OR s.seq = 1;

-- name: or_behind_the_key :many
-- tenant: convo_id
-- Finds: nothing
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id AND (s.seq = 1 OR s.deleted_at IS NULL);

-- name: key_when_given :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE :convo_id::text IS NULL OR s.convo_id = :convo_id;

-- name: key_negated :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE NOT (s.convo_id = :convo_id);

-- name: key_unequal :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id <> :convo_id;

-- name: key_not_distinct :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id IS NOT DISTINCT FROM :convo_id;

-- name: key_in_coalesce :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE coalesce(s.convo_id, '') = :convo_id;

-- name: key_cut_by_a_cast :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id::varchar(1) = :convo_id;

-- name: parameter_cut_by_a_cast :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id::varchar(1);

-- name: key_collated :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id COLLATE "C" = :convo_id;

-- name: key_of_the_statement_itself :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id = 'c1' AND s.id = :convo_id;

-- name: key_between :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id BETWEEN :convo_id AND :convo_id;

-- name: key_in_a_case :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE CASE WHEN s.seq > 1 THEN s.convo_id = :convo_id ELSE true END;

-- name: row_equality :many
-- tenant: convo_id
-- Finds: nothing
SELECT s.seq FROM messages AS s WHERE (s.convo_id, s.id) = (:convo_id, :id);

-- name: row_order :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE (s.convo_id, s.id) >= (:convo_id, :id);

-- name: array_of_keys :many
-- tenant: convo_ids
-- Finds: nothing
SELECT s.seq FROM messages AS s WHERE s.convo_id = ANY (:convo_ids::text[]);

-- name: list_of_keys :many
-- tenant: one, other
-- Finds: nothing
SELECT s.seq FROM messages AS s WHERE s.convo_id IN (:one, :other);

-- name: list_with_a_literal :many
-- tenant: one
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id IN (:one, 'c1');

-- name: none_of_these_keys :many
-- tenant: convo_ids
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id <> ALL (:convo_ids::text[]);

-- name: all_of_these_keys :many
-- tenant: convo_ids
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id = ALL (:convo_ids::text[]);

-- name: array_with_more :many
-- tenant: convo_ids
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id = ANY (:convo_ids::text[] || ARRAY['c1']);

-- name: joined_by_its_key :many
-- tenant: convo_id
-- Finds: nothing
SELECT s.seq FROM conversations AS c JOIN messages AS s ON s.convo_id = c.id WHERE c.id = :convo_id;

-- name: joined_by_another_column :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM conversations AS c JOIN messages AS s ON s.seq = c.last_seq WHERE c.id = :convo_id;

-- name: joined_by_what_its_owner_chose :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM conversations AS c JOIN messages AS s ON s.convo_id = c.title WHERE c.id = :convo_id;

-- name: joined_by_a_tenant_column :many
-- tenant: member_did
-- Finds: nothing
SELECT c.id FROM members AS m JOIN conversations AS c ON c.id = m.convo_id WHERE m.member_did = :member_did;

-- name: left_join_binds_its_right_side :many
-- tenant: convo_id
-- Finds: nothing
SELECT s.seq FROM conversations AS c LEFT JOIN messages AS s ON s.convo_id = c.id WHERE c.id = :convo_id;

-- name: left_join_does_not_bind_its_left_side :many
-- tenant: convo_id
-- Finds: [conversations] conversations AS c is bound to no tenant
SELECT s.seq FROM conversations AS c LEFT JOIN messages AS s ON s.convo_id = c.id AND c.id = :convo_id;

-- name: right_join_binds_its_left_side_alone :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM conversations AS c RIGHT JOIN messages AS s ON s.convo_id = c.id AND c.id = :convo_id;

-- name: full_join_binds_nothing :many
-- tenant: convo_id
-- Finds: [conversations] conversations AS c is bound to no tenant
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM conversations AS c FULL JOIN messages AS s ON s.convo_id = c.id AND c.id = :convo_id;

-- name: where_makes_a_left_join_inner :many
-- tenant: convo_id
-- Finds: nothing
SELECT s.seq FROM conversations AS c LEFT JOIN messages AS s ON s.convo_id = c.id WHERE s.convo_id = :convo_id;

-- name: inner_join_inside_an_outer_one :many
-- tenant: convo_id
-- Finds: nothing
SELECT k.kind
  FROM kinds AS k
  LEFT JOIN (conversations AS c JOIN messages AS s ON s.convo_id = c.id AND c.id = :convo_id) ON s.message_type = k.kind;

-- name: comma_join :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM conversations AS c, messages AS s WHERE c.id = :convo_id;

-- name: correlated_sub_select :many
-- tenant: convo_id
-- Finds: nothing
SELECT c.id FROM conversations AS c
 WHERE c.id = :convo_id AND EXISTS (SELECT FROM messages AS s WHERE s.convo_id = c.id);

-- name: uncorrelated_sub_select :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT c.id FROM conversations AS c
 WHERE c.id = :convo_id AND EXISTS (SELECT FROM messages AS s WHERE s.seq = c.last_seq);

-- name: shadowed_correlation :many
-- tenant: convo_id
-- Finds: [conversations] conversations AS c is bound to no tenant
SELECT c.id FROM conversations AS c
 WHERE c.id = :convo_id AND EXISTS (SELECT FROM conversations AS c WHERE c.id = c.id);

-- name: scalar_sub_select_in_the_list :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT c.id, (SELECT max(s.seq) FROM messages AS s) AS seq FROM conversations AS c WHERE c.id = :convo_id;

-- name: sub_select_in_limit :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT c.id FROM conversations AS c WHERE c.id = :convo_id LIMIT (SELECT count(*) FROM messages AS s);

-- name: in_a_bound_sub_select :many
-- tenant: member_did
-- Finds: nothing
SELECT s.seq FROM messages AS s
 WHERE s.convo_id IN (SELECT m.convo_id FROM members AS m WHERE m.member_did = :member_did);

-- name: in_a_sub_select_of_itself :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
-- Finds: [members] members AS m is bound to no tenant
SELECT s.seq FROM messages AS s
 WHERE s.convo_id IN (SELECT m.convo_id FROM members AS m WHERE m.convo_id = s.convo_id) AND s.id = :convo_id;

-- name: not_in_a_bound_sub_select :many
-- tenant: member_did
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM messages AS s
 WHERE s.convo_id NOT IN (SELECT m.convo_id FROM members AS m WHERE m.member_did = :member_did);

-- name: bound_inside_a_sub_select :many
-- tenant: convo_id
-- Finds: nothing
SELECT found.seq FROM (SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id) AS found;

-- name: bound_outside_a_sub_select :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT found.seq FROM (SELECT s.convo_id, max(s.seq) AS seq FROM messages AS s GROUP BY s.convo_id) AS found
 WHERE found.convo_id = :convo_id;

-- name: lateral_sub_select :many
-- tenant: convo_ids
-- Finds: nothing
SELECT newest.seq
  FROM unnest(:convo_ids::text[]) AS given (convo_id)
 CROSS JOIN LATERAL (SELECT s.seq FROM messages AS s WHERE s.convo_id = given.convo_id LIMIT 1) AS newest;

-- name: unnest_of_something_else :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
SELECT s.seq FROM unnest(ARRAY['c1', 'c2']) AS given (convo_id) JOIN messages AS s ON s.convo_id = given.convo_id
 WHERE s.id = :id;

-- name: the_wrong_column_of_unnest :many
-- tenant: convo_ids
-- Finds: [messages] messages AS s is bound by ids, where the header says convo_ids
SELECT s.seq
  FROM unnest(:convo_ids::text[], :ids::text[]) AS given (convo_id, id)
  JOIN messages AS s ON s.convo_id = given.id AND s.id = given.convo_id;

-- name: through_arrays_of_a_cte :many
-- tenant: convo_id
-- Finds: nothing
WITH doomed AS (
    SELECT s.convo_id, s.seq FROM messages AS s WHERE s.convo_id = :convo_id
)
DELETE FROM messages AS s
 USING unnest(ARRAY (SELECT doomed.convo_id FROM doomed), ARRAY (SELECT doomed.seq FROM doomed)) AS picked (convo_id, seq)
 WHERE s.convo_id = picked.convo_id AND s.seq = picked.seq
RETURNING s.seq;

-- name: a_cte_bound_in_each_branch :many
-- tenant: convo_id
-- Finds: nothing
WITH both_of AS (
    SELECT c.id FROM conversations AS c WHERE c.id = :convo_id
     UNION ALL
    SELECT m.convo_id FROM members AS m WHERE m.convo_id = :convo_id
)
SELECT s.seq FROM both_of JOIN messages AS s ON s.convo_id = both_of.id;

-- name: a_cte_bound_in_one_branch :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
WITH both_of AS (
    SELECT c.id FROM conversations AS c WHERE c.id = :convo_id
     UNION ALL
    SELECT k.kind FROM kinds AS k
)
SELECT s.seq FROM both_of JOIN messages AS s ON s.convo_id = both_of.id;

-- name: a_cte_that_nobody_reads :many
-- tenant: convo_id
-- Finds: [messages] messages is bound to no tenant
WITH removed AS (
    DELETE FROM messages WHERE id = :id
)
SELECT c.id FROM conversations AS c WHERE c.id = :convo_id;

-- name: recursion_that_keeps_the_key :many
-- tenant: collection_id
-- Finds: nothing
WITH RECURSIVE below AS (
    SELECT d.collection_id, d.id FROM documents AS d WHERE d.collection_id = :collection_id AND d.id = :id
     UNION ALL
    SELECT below.collection_id, d.id
      FROM below JOIN documents AS d ON d.collection_id = below.collection_id AND d.parent_id = below.id
)
SELECT below.id FROM below;

-- name: recursion_that_loses_the_key :many
-- tenant: collection_id
-- Finds: [documents] documents AS d is bound to no tenant
WITH RECURSIVE below AS (
    SELECT d.collection_id, d.id FROM documents AS d WHERE d.collection_id = :collection_id AND d.id = :id
     UNION ALL
    SELECT d.collection_id, d.id FROM below JOIN documents AS d ON d.parent_id = below.id
)
SELECT below.id FROM below;

-- name: recursion_that_swaps_the_key :many
-- tenant: collection_id
-- Finds: [documents] documents AS d is bound to no tenant
WITH RECURSIVE below AS (
    SELECT d.collection_id, d.id FROM documents AS d WHERE d.collection_id = :collection_id AND d.id = :id
     UNION ALL
    SELECT d.parent_id, d.id
      FROM below JOIN documents AS d ON d.collection_id = below.collection_id AND d.parent_id = below.id
)
SELECT below.id FROM below;

-- name: union_with_a_loose_branch :many
-- tenant: convo_id
-- Finds: [messages] messages AS t is bound to no tenant
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id
 UNION ALL
SELECT t.seq FROM messages AS t WHERE t.id = :id;

-- name: inserted_parameter :exec
-- tenant: convo_id
-- Finds: nothing
INSERT INTO members (convo_id, member_did) VALUES (:convo_id, :member_did);

-- name: inserted_into_the_wrong_column :exec
-- tenant: convo_id
-- Finds: [messages] the row inserted into messages is bound by id, where the header says convo_id
INSERT INTO messages (convo_id, seq, id, sender_did, message_type, body)
VALUES (:id, 1, :convo_id, :sender_did, 'app', '');

-- name: inserted_in_one_row_only :exec
-- tenant: convo_id
-- Finds: [conversations] the row inserted into conversations is bound to no tenant
INSERT INTO conversations (id) VALUES (:convo_id), ('c1');

-- name: inserted_from_a_bound_table :exec
-- tenant: convo_id
-- Finds: nothing
INSERT INTO members (convo_id, member_did) SELECT c.id, :did FROM conversations AS c WHERE c.id = :convo_id;

-- name: inserted_from_a_loose_table :exec
-- tenant: member_did
-- Finds: [members] the row inserted into members is bound to no tenant
-- Finds: [conversations] conversations AS c is bound to no tenant
INSERT INTO members (convo_id, member_did) SELECT c.id, :member_did FROM conversations AS c;

-- name: inserted_default :exec
-- tenant: convo_id
-- Finds: [messages] the row inserted into messages is bound to no tenant
INSERT INTO messages (convo_id, id) VALUES (DEFAULT, :convo_id);

-- name: conflict_within_the_tenant :exec
-- tenant: convo_id
-- Finds: nothing
INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, body)
VALUES (:convo_id, 1, :id, :sender_did, 'app', '')
    ON CONFLICT (convo_id, id) DO UPDATE SET body = excluded.body;

-- name: conflict_across_tenants :exec
-- tenant: convo_id
-- Finds: [ON CONFLICT] the row of messages that is updated instead is bound to no tenant
INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, body)
VALUES (:convo_id, 1, :id, :sender_did, 'app', '')
    ON CONFLICT (id) DO UPDATE SET body = excluded.body;

-- name: conflict_on_a_named_constraint :exec
-- tenant: convo_id
-- Finds: [ON CONFLICT] the row of messages that is updated instead is bound to no tenant
INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, body)
VALUES (:convo_id, 1, :id, :sender_did, 'app', '')
    ON CONFLICT ON CONSTRAINT messages_global_key DO UPDATE SET body = excluded.body;

-- name: conflict_across_tenants_excluded :exec
-- tenant: convo_id
-- Finds: nothing
INSERT INTO messages AS s (convo_id, seq, id, sender_did, message_type, body)
VALUES (:convo_id, 1, :id, :sender_did, 'app', '')
    ON CONFLICT ON CONSTRAINT messages_global_key DO UPDATE SET body = excluded.body
 WHERE s.convo_id = excluded.convo_id;

-- name: conflict_passed_over :exec
-- tenant: convo_id
-- Finds: nothing
INSERT INTO messages (convo_id, seq, id, sender_did, message_type, body)
VALUES (:convo_id, 1, :id, :sender_did, 'app', '')
    ON CONFLICT (id) DO NOTHING;

-- name: update_from :exec
-- tenant: convo_id
-- Finds: nothing
UPDATE messages AS s SET body = '' FROM conversations AS c WHERE c.id = :convo_id AND s.convo_id = c.id;

-- name: update_of_all :exec
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
UPDATE messages AS s SET body = '' FROM conversations AS c WHERE c.id = :convo_id AND s.seq = c.last_seq;

-- name: moved_to_another_tenant :exec
-- tenant: convo_id
-- Finds: [convo_id] what messages.convo_id is set to is bound to no tenant
UPDATE messages AS s SET convo_id = 'c2' WHERE s.convo_id = :convo_id;

-- name: delete_using_nothing :exec
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound to no tenant
DELETE FROM messages AS s USING conversations AS c WHERE c.id = :convo_id;

-- name: bound_by_what_another_statement_changed :exec
-- tenant: convo_id
-- Finds: nothing
WITH stored AS (
    INSERT INTO conversations (id) VALUES (:convo_id) ON CONFLICT (id) DO NOTHING RETURNING id
)
INSERT INTO members (convo_id, member_did) SELECT stored.id, :did FROM stored;

-- name: merge :exec
-- tenant: convo_id
-- Finds: [messages] check cannot read MergeStmt
MERGE INTO messages AS s USING conversations AS c ON s.convo_id = c.id AND c.id = :convo_id
 WHEN MATCHED THEN DELETE;

-- name: natural_join :many
-- tenant: convo_id
-- Finds: [members] check cannot read this join, for NATURAL
SELECT s.seq FROM messages AS s NATURAL JOIN members WHERE s.convo_id = :convo_id;

-- name: a_whole_row :many
-- tenant: convo_id
-- Finds: [s] check cannot read s: it names no columns
SELECT s FROM messages AS s WHERE s.convo_id = :convo_id;

-- name: a_function_of_the_schema :many
-- tenant: convo_id
-- Finds: [total] total() is not known to check
SELECT total() AS total FROM messages AS s WHERE s.convo_id = :convo_id;

-- name: no_header :many
-- Finds: [-- name: no_header :many] messages is a tenant's table, and the header does not say what binds it
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id;

-- name: no_tenants_table :many
-- Finds: nothing
SELECT k.label FROM kinds AS k WHERE k.kind = :kind;

-- name: a_header_for_nothing :many
-- tenant: kind
-- Finds: [-- tenant: kind] kind binds no tenant's table
SELECT k.label FROM kinds AS k WHERE k.kind = :kind;

-- name: the_wrong_parameter :many
-- tenant: convo_id
-- Finds: [messages] messages AS s is bound by id, where the header says convo_id
SELECT s.seq FROM messages AS s WHERE s.convo_id = :id AND s.id = :convo_id;

-- name: a_column_in_the_header :many
-- tenant: convo_id
-- Finds: nothing
SELECT s.seq FROM messages AS s WHERE s.convo_id = ANY (:convo_ids::text[]);

-- name: a_header_that_is_half_true :many
-- tenant: convo_id, member_did
-- Finds: [-- tenant: convo_id, member_did] member_did binds no tenant's table
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id AND s.sender_did = :member_did;

-- name: exempt :many
-- tenant: none (retention, over all conversations)
-- Finds: nothing
SELECT s.seq FROM messages AS s WHERE s.sent_at < now() LIMIT :limit;

-- name: exempt_for_nothing :many
-- tenant: none (retention, over all conversations)
-- Finds: [-- tenant: none (retention, over all conversations)] nothing is exempted: each tenant's table is bound
SELECT s.seq FROM messages AS s WHERE s.convo_id = :convo_id;

-- name: one_of_two_keys_inserted :exec
-- tenant: member_did
-- Finds: [members] the row inserted into members is bound to no tenant
INSERT INTO members (convo_id, member_did) VALUES ('c1', :member_did);

-- name: columns_named_anew :many
-- tenant: convo_id
-- Finds: [messages] check cannot read columns of a table named anew
SELECT s.convo_id FROM messages AS s (seq_, convo_id, id) WHERE s.convo_id = :convo_id::bigint;

-- name: conflict_under_another_collation :exec
-- tenant: id
-- Finds: [ON CONFLICT] the row of conversations that is updated instead is bound to no tenant
INSERT INTO conversations (id) VALUES (:id) ON CONFLICT (id COLLATE "default") DO UPDATE SET epoch = 1;
