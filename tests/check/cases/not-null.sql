-- What the rule `not-null` finds, and what it must not.

-- name: catalog_columns :many
-- Row: seq int, body bytes, deleted_at datetime | None
-- Finds: nothing
SELECT s.seq, s.body, s.deleted_at FROM messages AS s WHERE s.convo_id = :convo_id;

-- name: a_nullable_column :many
-- Row: id str, title str
-- Finds: [c.title] title may be null, and Item.title does not admit None
SELECT c.id, c.title FROM conversations AS c WHERE c.id = :convo_id;

-- name: a_claim :many
-- Row: id str, title str
-- not-null: title (this server always sets one)
-- Finds: nothing
SELECT c.id, c.title FROM conversations AS c WHERE c.id = :convo_id;

-- name: a_claim_that_is_proved :many
-- Row: id str, title str
-- not-null: id (it is the key)
-- not-null: title (this server always sets one)
-- Finds: [-- not-null: id (it is the key)] id is provably not null
SELECT c.id, c.title FROM conversations AS c WHERE c.id = :convo_id;

-- name: a_claim_on_nothing :many
-- Row: id str
-- not-null: name (this server always sets one)
-- Finds: [-- not-null: name (this server always sets one)] there is no result column name
SELECT c.id FROM conversations AS c WHERE c.id = :convo_id;

-- name: a_claim_that_nothing_asks_for :many
-- Row: title str | None
-- not-null: title (this server always sets one)
-- Finds: [-- not-null: title (this server always sets one)] nothing asks that title is not null
SELECT c.title FROM conversations AS c WHERE c.id = :convo_id;

-- name: a_claim_without_a_result :exec
-- not-null: title (this server always sets one)
-- Finds: [-- not-null: title (this server always sets one)] there is no result column title
DELETE FROM conversations AS c WHERE c.id = :convo_id;

-- name: excluded_by_where :many
-- Row: title str, deleted_at datetime
-- Finds: nothing
SELECT c.title, s.deleted_at
  FROM conversations AS c
  JOIN messages AS s ON s.convo_id = c.id
 WHERE c.title = :title AND s.deleted_at IS NOT NULL;

-- name: excluded_by_a_function_of_it :many
-- Row: title str
-- Finds: nothing
SELECT c.title FROM conversations AS c WHERE lower(c.title) LIKE :title;

-- name: excluded_in_one_side_of_an_or :many
-- Row: title str
-- Finds: [c.title] title may be null
SELECT c.title FROM conversations AS c WHERE c.title = :title OR c.epoch = 0;

-- name: excluded_in_both_sides_of_an_or :many
-- Row: title str
-- Finds: nothing
SELECT c.title FROM conversations AS c WHERE c.title = :title OR (c.title > :other AND c.epoch = 0);

-- name: null_where_is_null :many
-- Row: title str
-- Finds: [c.title] title may be null
SELECT c.title FROM conversations AS c WHERE c.title IS NOT DISTINCT FROM :title;

-- name: null_beside_all :many
-- Row: title str
-- Finds: [c.title] title may be null
SELECT c.title FROM conversations AS c WHERE c.title <> ALL (:titles::text[]);

-- name: left_joined :many
-- Row: id str, seq int
-- Finds: [s.seq] seq may be null
SELECT c.id, s.seq FROM conversations AS c LEFT JOIN messages AS s ON s.convo_id = c.id;

-- name: right_joined :many
-- Row: id str, seq int
-- Finds: [c.id] id may be null
SELECT c.id, s.seq FROM conversations AS c RIGHT JOIN messages AS s ON s.convo_id = c.id;

-- name: full_joined :many
-- Row: id str, seq int
-- Finds: [c.id] id may be null
-- Finds: [s.seq] seq may be null
SELECT c.id, s.seq FROM conversations AS c FULL JOIN messages AS s ON s.convo_id = c.id;

-- name: left_joined_and_asked_for :many
-- Row: id str, seq int, body bytes
-- Finds: nothing
SELECT c.id, s.seq, s.body FROM conversations AS c LEFT JOIN messages AS s ON s.convo_id = c.id WHERE s.seq > 1;

-- name: left_joined_in_a_sub_select :many
-- Row: seq int
-- Finds: [found.seq] seq may be null
SELECT found.seq
  FROM (SELECT s.seq FROM conversations AS c LEFT JOIN messages AS s ON s.convo_id = c.id) AS found;

-- name: inner_joined_under_an_outer_join :many
-- Row: kind str, seq int
-- Finds: [s.seq] seq may be null
SELECT k.kind, s.seq
  FROM kinds AS k
  LEFT JOIN (conversations AS c JOIN messages AS s ON s.convo_id = c.id) ON s.message_type = k.kind;

-- name: lateral_left :many
-- Row: id str, seq int
-- Finds: [newest.seq] seq may be null
SELECT c.id, newest.seq
  FROM conversations AS c
  LEFT JOIN LATERAL (SELECT s.seq FROM messages AS s WHERE s.convo_id = c.id LIMIT 1) AS newest ON true;

-- name: expressions_that_are_never_null :many
-- Row: a int, b str, c bool, d int, e Any, f str, g bool, h int, i bool, j Any, k str
-- Finds: nothing
SELECT 1 AS a, 'x' AS b, c.title IS NULL AS c, row_number() OVER () AS d, ARRAY (SELECT 1) AS e,
       coalesce(c.title, '') AS f, EXISTS (SELECT) AS g, greatest(c.epoch, NULL) AS h,
       c.title IS DISTINCT FROM 'x' AS i, now() AS j, CASE WHEN c.title = 'x' THEN 'y' ELSE c.id END AS k
  FROM conversations AS c;

-- name: expressions_of_what_is_not_null :many
-- Row: a int, b bool, c bytes, d str, e bool, f str, g bool
-- Finds: nothing
SELECT c.epoch + c.last_seq * 2 AS a, c.epoch > 1 AND NOT c.epoch = 7 AS b, sha256(c.id::bytea) AS c, c.id || 'x' AS d,
       c.epoch BETWEEN 1 AND 2 AS e, current_setting('server_version') AS f, c.id IN ('x', 'y') AS g
  FROM conversations AS c;

-- name: expressions_that_may_be_null :many
-- Row: a int, b str, c str, d int, e str, f bool, g str, h str, i bool, j str
-- Finds: [NULL] a may be null
-- Finds: [nullif] b may be null
-- Finds: [c.title] c may be null
-- Finds: [greatest] d may be null
-- Finds: [CASE] e may be null
-- Finds: [c.title] f may be null
-- Finds: [coalesce] g may be null
-- Finds: [current_setting] h may be null
-- Finds: [c.id] i may be null
-- Finds: [lag] j may be null
SELECT NULL::int AS a, nullif(c.id, 'x') AS b, c.title || 'x' AS c, greatest(NULL::int, length(c.title)) AS d,
       CASE WHEN c.epoch = 1 THEN c.id END AS e, c.title = 'x' OR c.epoch = 1 AS f, coalesce(c.title, NULL) AS g,
       current_setting('a.b', true) AS h, c.id IN (c.title) AS i, lag(c.id) OVER () AS j
  FROM conversations AS c;

-- name: aggregates :one
-- Row: a int, b int
-- Finds: [max] b may be null
SELECT count(*) AS a, max(s.seq) AS b FROM messages AS s WHERE s.convo_id = :convo_id;

-- name: aggregates_of_groups :many
-- Row: convo_id str, a int, b int, c datetime
-- Finds: [max] b may be null
-- Finds: [max] c may be null
SELECT s.convo_id, max(s.seq) AS a, max(s.seq) FILTER (WHERE s.seq > 1) AS b, max(s.deleted_at) AS c
  FROM messages AS s
 GROUP BY s.convo_id;

-- name: scalar_sub_selects :one
-- Row: a int, b int, c int
-- Finds: [(] b may be null
-- Finds: [(] c may be null
SELECT (SELECT count(*) FROM kinds AS k) AS a,
       (SELECT c.epoch FROM conversations AS c LIMIT 1) AS b,
       (SELECT count(*) FROM kinds AS k HAVING count(*) > 1) AS c;

-- name: parameters :many
-- Takes: str
-- Row: a str, b str
-- Finds: nothing
SELECT :a::text AS a, given.b FROM unnest(ARRAY[:b::text]) AS given (b);

-- name: optional_parameters :many
-- Row: a str, b str
-- Finds: [:a] a may be null
-- Finds: [given.b] b may be null
SELECT :a::text AS a, given.b FROM unnest(ARRAY[:b::text]) AS given (b);

-- name: several_arrays_are_padded :many
-- Takes: list[str]
-- Row: a str, n int
-- Finds: [given.a] a may be null
SELECT given.a, given.n FROM unnest(:a::text[], :b::text[]) WITH ORDINALITY AS given (a, b, n);

-- name: one_array_is_not :many
-- Takes: list[str]
-- Row: a str, n int
-- Finds: nothing
SELECT given.a, given.n FROM unnest(:a::text[]) WITH ORDINALITY AS given (a, n);

-- name: union_of_both :many
-- Row: name str
-- Finds: [c.title] name may be null
SELECT k.kind AS name FROM kinds AS k
 UNION ALL
SELECT c.title FROM conversations AS c;

-- name: through_ctes :many
-- Row: seq int, title str
-- Finds: [named.title] title may be null
WITH stored AS (
    SELECT s.convo_id, s.seq FROM messages AS s
),
named AS (
    SELECT c.id, c.title FROM conversations AS c
)
SELECT stored.seq, named.title FROM stored JOIN named ON named.id = stored.convo_id;

-- name: recursion :many
-- Row: id UUID, depth int, parent_id UUID
-- Finds: [below.parent_id] parent_id may be null
WITH RECURSIVE below (id, depth, parent_id) AS (
    SELECT d.id, 0, d.parent_id FROM documents AS d WHERE d.id = :id
     UNION ALL
    SELECT d.id, below.depth + 1, d.parent_id FROM below JOIN documents AS d ON d.parent_id = below.id
)
SELECT below.id, below.depth, below.parent_id FROM below;

-- name: returning_from_insert :one
-- Row: id str, epoch int, title str
-- Finds: [title] title may be null
INSERT INTO conversations (id, title) VALUES (:id, :title) RETURNING id, epoch, title;

-- name: returning_what_was_given :one
-- Takes: str
-- Row: id str, title str
-- Finds: nothing
INSERT INTO conversations (id, title) VALUES (:id, :title) RETURNING id, title;

-- name: returning_what_was_there :one
-- Takes: str
-- Row: id str, title str
-- Finds: [title] title may be null
INSERT INTO conversations (id, title) VALUES (:id, :title)
    ON CONFLICT (id) DO UPDATE SET epoch = 1
RETURNING id, title;

-- name: returning_from_update :many
-- Row: convo_id str, left_at datetime
-- Finds: nothing
UPDATE members AS m SET left_at = now() WHERE m.left_at IS NULL RETURNING m.convo_id, m.left_at;

-- name: returning_what_was_taken_away :many
-- Row: convo_id str, left_at datetime
-- Finds: [m.left_at] left_at may be null
UPDATE members AS m SET left_at = NULL WHERE m.left_at IS NOT NULL RETURNING m.convo_id, m.left_at;

-- name: returning_what_stayed :many
-- Row: convo_id str, left_at datetime
-- Finds: nothing
UPDATE members AS m SET read_seq = 0 WHERE m.left_at IS NOT NULL RETURNING m.convo_id, m.left_at;

-- name: json_null_is_not_null_until_cast :many
-- Row: meta Any, pages int, size int
-- Finds: [d.meta] pages may be null
-- Finds: [given.meta] size may be null
SELECT d.meta, d.meta::int AS pages, given.meta::int AS size
  FROM documents AS d
 CROSS JOIN LATERAL (SELECT d.meta) AS given;

-- name: json_null_of_a_function :many
-- Row: a int, b int, c int, size int
-- Finds: [jsonb_strip_nulls] a may be null
-- Finds: [coalesce] b may be null
-- Finds: [any_value] c may be null
SELECT jsonb_strip_nulls(d.meta)::int AS a, coalesce(jsonb_set(d.meta, '{a}', '1'), '1')::int AS b,
       any_value(d.meta)::int AS c, jsonb_array_length(d.meta)::int AS size
  FROM documents AS d
 GROUP BY d.meta;

-- name: rows_are_compared_part_by_part :many
-- Row: a bool, b bool, c bool
-- Finds: [(] a may be null
-- Finds: [(] b may be null
SELECT (c.id, c.title) < ('a', 'b') AS a, (c.id, c.title) IN (('a', 'b')) AS b, (c.id, c.epoch) < ('a', 1) AS c
  FROM conversations AS c;

-- name: variadic :many
-- Takes: list[str]
-- Row: a str, b str
-- Finds: [concat] b may be null
SELECT concat(c.title, 'x') AS a, concat(VARIADIC :names::text[]) AS b FROM conversations AS c;

-- name: a_value :value
-- Returns: int
-- Finds: [c.title] title may be null, and the value returned does not admit None
SELECT c.title FROM conversations AS c WHERE c.id = :id;

-- name: an_optional_value :value
-- Returns: str | None
-- Finds: nothing
SELECT c.title FROM conversations AS c WHERE c.id = :id;

-- name: guarded :many
-- Guarded: yes
-- Row: seq int, body bytes, deleted_at datetime | None
-- Finds: nothing
SELECT s.seq, s.body, s.deleted_at
  FROM members AS m
  LEFT JOIN messages AS s ON s.convo_id = m.convo_id
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did;

-- name: guarded_by_a_nullable_column :many
-- Guarded: yes
-- Row: deleted_at datetime | None, seq int
-- Finds: [s.deleted_at] with refused=, this first column must be null in the empty answer, and only there
SELECT s.deleted_at, s.seq
  FROM members AS m
  LEFT JOIN messages AS s ON s.convo_id = m.convo_id
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did;

-- name: guarded_by_an_inner_join :many
-- Guarded: yes
-- Row: seq int
-- Finds: [s.seq] with refused=, this first column must be null in the empty answer, and only there
SELECT s.seq
  FROM members AS m
  JOIN messages AS s ON s.convo_id = m.convo_id
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did;

-- name: guarded_by_the_actor :many
-- Guarded: yes
-- Row: member_did str, seq int
-- Finds: [m.member_did] with refused=, this first column must be null in the empty answer, and only there
SELECT m.member_did, s.seq
  FROM members AS m
  LEFT JOIN messages AS s ON s.convo_id = m.convo_id
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did;

-- name: guarded_with_another_outer_join :many
-- Guarded: yes
-- Row: seq int, epoch int
-- Finds: [c.epoch] epoch may be null
SELECT s.seq, c.epoch
  FROM members AS m
  LEFT JOIN messages AS s ON s.convo_id = m.convo_id
  LEFT JOIN conversations AS c ON c.id = m.convo_id AND c.epoch > 1
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did;

-- name: guarded_chain :many
-- Guarded: yes
-- Row: id str, seq int
-- Finds: nothing
SELECT c.id, s.seq
  FROM members AS m
  LEFT JOIN messages AS s ON s.convo_id = m.convo_id
  LEFT JOIN conversations AS c ON c.id = s.convo_id
 WHERE m.convo_id = :convo_id AND m.member_did = :reader_did;

-- name: what_check_cannot_read :many
-- Row: seq int
-- Finds: [members] check cannot read this join, for NATURAL
SELECT s.seq FROM messages AS s NATURAL JOIN members;
