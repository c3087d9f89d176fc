-- What the rule `columns` finds, and what it must not.

-- name: all_types :many
-- Row: id UUID, parent_id UUID | None, title str, pages int, tags list[str], weight Decimal, meta dict[str, Any]
-- Finds: nothing
SELECT d.id, d.parent_id, d.title, d.pages, d.tags, d.weight, d.meta FROM documents AS d;

-- name: more_types :many
-- Row: seq int, body bytes, sent_at datetime, gone bool, part float, whatever Any
-- Finds: nothing
SELECT s.seq, s.body, s.sent_at, s.deleted_at IS NOT NULL AS gone, 0.5::float8 AS part, s.id AS whatever
  FROM messages AS s;

-- name: another_type :many
-- Row: seq str, body str, id int, sent_at str, gone int
-- Finds: [s.seq] seq is bigint, and Item.seq is str
-- Finds: [s.body] body is bytea, and Item.body is str
-- Finds: [s.id] id is text, and Item.id is int
-- Finds: [s.sent_at] sent_at is timestamp with time zone, and Item.sent_at is str
-- Finds: [s.deleted_at] gone is boolean, and Item.gone is int
SELECT s.seq, s.body, s.id, s.sent_at, s.deleted_at IS NULL AS gone FROM messages AS s;

-- name: a_time_without_its_zone :many
-- Row: sent_at datetime
-- Finds: [s.sent_at] sent_at is timestamp without time zone, and Item.sent_at is datetime
SELECT s.sent_at::timestamp FROM messages AS s;

-- name: numeric_is_no_int :value
-- Returns: int
-- Finds: [sum] sum is numeric, and the value returned is int
SELECT sum(s.seq) FROM messages AS s;

-- name: arrays :many
-- Row: tags list[int], title list[str], pages int
-- Finds: [d.tags] tags is text[], and Item.tags is list[int]
-- Finds: [d.title] title is character varying, and Item.title is list[str]
-- Finds: [ARRAY] pages is integer[], and Item.pages is int
SELECT d.tags, d.title, ARRAY[d.pages] AS pages FROM documents AS d;

-- name: json :many
-- Row: meta str, other list[dict[str, Any]]
-- Finds: [d.meta] meta is jsonb, and Item.meta is str
SELECT d.meta, d.meta AS other FROM documents AS d;

-- name: a_column_too_many :many
-- Row: seq int
-- Finds: [s.id] id is no field of Item
SELECT s.seq, s.id FROM messages AS s;

-- name: a_column_too_few :many
-- Row: seq int, id str
-- Finds: [s.seq] Item.id has no column
SELECT s.seq FROM messages AS s;

-- name: a_column_of_another_name :many
-- Row: seq int, sender str
-- Finds: [s.sender_did] sender_did is no field of Item
SELECT s.seq, s.sender_did FROM messages AS s;

-- name: another_order :many
-- Row: seq int, id str
-- Finds: [s.id] id stands where Item has seq
SELECT s.id, s.seq FROM messages AS s;

-- name: a_column_twice :many
-- Row: seq int, id str
-- Finds: [t.seq] seq stands here twice
SELECT s.seq, s.id, t.seq FROM messages AS s CROSS JOIN messages AS t;

-- name: a_column_without_a_name :many
-- Row: seq int
-- Finds: [s.seq] ?column? is no field of Item
SELECT s.seq + 1 FROM messages AS s;

-- name: a_star :many
-- Row: kind str, label str
-- Finds: nothing
SELECT * FROM kinds AS k;

-- name: a_literal_by_its_check :many
-- Row: message_type MessageType
-- Finds: nothing
SELECT s.message_type FROM messages AS s;

-- name: a_literal_that_is_too_narrow :many
-- Row: message_type Literal['app']
-- Finds: [s.message_type] message_type may hold 'commit', and Item.message_type is Literal['app']
SELECT s.message_type FROM messages AS s;

-- name: a_literal_without_a_check :many
-- Row: sender_did MessageType
-- Finds: [s.sender_did] sender_did may hold anything
SELECT s.sender_did FROM messages AS s;

-- name: a_literal_by_an_enum :many
-- Row: level Level
-- Finds: nothing
SELECT g.level FROM grants AS g;

-- name: a_literal_that_misses_a_label :many
-- Row: level Literal['read']
-- Finds: [g.level] level may hold 'write'
SELECT g.level FROM grants AS g;

-- name: a_literal_in_the_statement :many
-- Row: kind Literal['app', 'none']
-- Finds: nothing
WITH found AS (
    SELECT 'app' AS kind
     UNION ALL
    SELECT CASE WHEN c.epoch = 0 THEN 'none' ELSE 'app' END FROM conversations AS c
)
SELECT found.kind FROM found;

-- name: a_literal_with_a_loose_branch :many
-- Row: message_type MessageType
-- Finds: [stored.message_type] message_type may hold anything
WITH stored AS (
    SELECT s.message_type FROM messages AS s
     UNION ALL
    SELECT k.kind FROM kinds AS k
)
SELECT stored.message_type FROM stored;

-- name: a_literal_given_back :many
-- Takes: MessageType
-- Row: message_type MessageType
-- Finds: nothing
SELECT :message_type::text AS message_type;

-- name: a_str_from_an_enum :many
-- Row: level str
-- Finds: nothing
SELECT g.level FROM grants AS g;

-- name: two_values :value
-- Returns: int
-- Finds: [s.id] :value has one column, here are 2
SELECT s.seq, s.id FROM messages AS s;

-- name: a_value :value
-- Returns: int | None
-- Finds: nothing
SELECT max(s.seq) FROM messages AS s;

-- name: an_unread_result :rows
-- Finds: [s.seq] nothing reads this result
DELETE FROM messages AS s WHERE s.convo_id = :convo_id RETURNING s.seq;

-- name: no_result :exec
-- Finds: nothing
SELECT FROM conversations AS c WHERE c.id = :convo_id FOR UPDATE;

-- name: returning :maybe
-- Row: convo_id str, member_did str, read_seq str
-- Finds: [m.read_seq] read_seq is bigint, and Item.read_seq is str
UPDATE members AS m SET read_seq = 0 WHERE m.convo_id = :convo_id RETURNING m.convo_id, m.member_did, m.read_seq;
