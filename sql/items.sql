-- Items: small named records. They have no tenant: the program that calls says who may.

-- name: insert_item :one
-- Store a new item.
INSERT INTO items AS i (id, name, description)
VALUES (:item_id, :name, nullif(:description::text, ''))
RETURNING i.id, i.name, i.description, i.created_at, i.updated_at;

-- name: get_item :one
-- One item.
-- index: items_pkey
SELECT i.id, i.name, i.description, i.created_at, i.updated_at
  FROM items AS i
 WHERE i.id = :item_id;

-- name: read_items :many
-- A page of items above an id, one row more than asked for; and, on request, how many items there are.
-- A row at least, which carries the total. Nothing is counted unless asked for.
-- index: none (the total, where it is asked for, counts all; the page is a range of items_pkey, as a test shows)
SELECT counted.total, page.id, page.name, page.description, page.created_at, page.updated_at
  FROM (SELECT CASE WHEN :with_total::boolean THEN (SELECT count(*) FROM items AS every) END AS total) AS counted
  LEFT JOIN LATERAL (
       SELECT i.id, i.name, i.description, i.created_at, i.updated_at
         FROM items AS i
        WHERE i.id > coalesce(:after_id::uuid, '00000000-0000-0000-0000-000000000000')
        ORDER BY i.id
        LIMIT :limit::bigint + 1) AS page ON true
 ORDER BY page.id;

-- name: count_items :value
-- How many items there are.
-- index: none (it counts all)
SELECT count(*) AS item_count FROM items AS i;

-- name: update_item :one
-- Change what is given of an item. A name is never null: null means not given.
-- index: items_pkey
UPDATE items AS i
   SET name = coalesce(:name::text, i.name),
       description = CASE WHEN :description_given::boolean THEN nullif(:description::text, '') ELSE i.description END,
       updated_at = statement_timestamp()
 WHERE i.id = :item_id
RETURNING i.id, i.name, i.description, i.created_at, i.updated_at;

-- name: delete_item :rows
-- Delete an item.
-- index: items_pkey
DELETE FROM items AS i WHERE i.id = :item_id;
