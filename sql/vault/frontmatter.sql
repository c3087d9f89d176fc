-- Frontmatter: what the head of a file says of it, with its tags and aliases.

-- name: store_frontmatter :rows
-- Write what a file says of itself; its tags and aliases become those given. 0: no such file.
-- tenant: user_id
-- index: files_pkey, frontmatter_pkey, file_tags_pkey, file_aliases_pkey
WITH stored AS (
    INSERT INTO frontmatter AS fm (user_id, file_id, publish, permalink, title, other, updated_at)
    SELECT f.user_id, f.id, :publish, :permalink::text, :title::text, :other::jsonb, statement_timestamp()
      FROM files AS f
     WHERE f.user_id = :user_id AND f.id = :file_id AND f.deleted_at IS NULL
        ON CONFLICT (user_id, file_id) DO UPDATE
       SET publish = excluded.publish, permalink = excluded.permalink, title = excluded.title,
           other = excluded.other, updated_at = excluded.updated_at
 RETURNING fm.file_id
),
untagged AS (
    DELETE FROM file_tags AS ft
     USING stored
     WHERE ft.user_id = :user_id AND ft.file_id = stored.file_id AND ft.tag <> ALL (:tags::text[])
),
tagged AS (
    INSERT INTO file_tags AS ft (user_id, file_id, tag, position)
    SELECT :user_id, stored.file_id, given.tag, given.position
      FROM stored
     CROSS JOIN unnest(:tags) WITH ORDINALITY AS given (tag, position)
        ON CONFLICT (user_id, file_id, tag) DO UPDATE SET position = excluded.position
),
unnamed AS (
    DELETE FROM file_aliases AS fa
     USING stored
     WHERE fa.user_id = :user_id AND fa.file_id = stored.file_id AND fa.alias <> ALL (:aliases::text[])
),
named AS (
    INSERT INTO file_aliases AS fa (user_id, file_id, alias, position)
    SELECT :user_id, stored.file_id, given.alias, given.position
      FROM stored
     CROSS JOIN unnest(:aliases) WITH ORDINALITY AS given (alias, position)
        ON CONFLICT (user_id, file_id, alias) DO UPDATE SET position = excluded.position
)
SELECT FROM stored;

-- name: get_frontmatter :maybe
-- What a file says of itself.
-- tenant: user_id
-- index: files_pkey, frontmatter_pkey, file_tags_pkey, file_aliases_pkey
SELECT fm.user_id, fm.file_id, fm.publish, fm.permalink, fm.title,
       coalesce((SELECT array_agg(ft.tag ORDER BY ft.position)
                   FROM file_tags AS ft
                  WHERE ft.user_id = :user_id AND ft.file_id = :file_id), '{}') AS tags,
       coalesce((SELECT array_agg(fa.alias ORDER BY fa.position)
                   FROM file_aliases AS fa
                  WHERE fa.user_id = :user_id AND fa.file_id = :file_id), '{}') AS aliases,
       fm.other, fm.updated_at
  FROM frontmatter AS fm
  JOIN files AS f ON f.user_id = fm.user_id AND f.id = fm.file_id
 WHERE fm.user_id = :user_id AND fm.file_id = :file_id AND f.deleted_at IS NULL;

-- name: find_files_by_tag :page
-- The files with a tag.
-- tenant: user_id
-- key: file_id
-- index: file_tags_tag_idx, files_pkey, frontmatter_pkey
SELECT ft.file_id, f.path, f.title
  FROM file_tags AS ft
 CROSS JOIN LATERAL (
       SELECT x.path, fm.title
         FROM files AS x
         JOIN frontmatter AS fm ON fm.user_id = x.user_id AND fm.file_id = x.id
        WHERE x.user_id = :user_id AND x.id = ft.file_id AND x.deleted_at IS NULL
        LIMIT 1) AS f
 WHERE ft.user_id = :user_id AND ft.tag = :tag
   AND ft.file_id > coalesce(:cursor_file_id::uuid, '00000000-0000-0000-0000-000000000000')
 ORDER BY ft.file_id
 LIMIT :limit;
