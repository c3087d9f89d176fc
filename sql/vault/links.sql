-- Links between files: each stored with the name that it was written with, and the file which that
-- name stands for.
--
-- A name stands for the file at that path, else for a file of that name, else for one with that
-- alias; path and name as they are written, else with .md; of several files the one with the
-- shortest path, then the first in order. Three statements say so in the same words.
-- Whoever changes what names stand for (files made, moved, deleted, restored; aliases) and whoever
-- writes links locks the user's vault first: one of the two sees the other.

-- name: store_links :value
-- Make these the links of a file, in their order; how many lead somewhere. No row: no such file.
-- tenant: user_id
-- index: files_pkey, files_path_key, files_name_idx, file_aliases_alias_idx, file_links_pkey
WITH source AS MATERIALIZED (
    SELECT f.id FROM files AS f WHERE f.user_id = :user_id AND f.id = :file_id AND f.deleted_at IS NULL
),
given AS MATERIALIZED (
    SELECT source.id AS source_file_id, g.position, g.target_name, g.embed, g.fragment
      FROM source
     CROSS JOIN unnest(:target_names::text[], :embeds::boolean[], :fragments::text[])
           WITH ORDINALITY AS g (target_name, embed, fragment, position)
),
wanted AS MATERIALIZED (
    SELECT DISTINCT given.target_name FROM given
),
found AS MATERIALIZED (
    SELECT wanted.target_name,
           coalesce(
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.path = '/' || wanted.target_name AND f.deleted_at IS NULL),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.path = '/' || wanted.target_name || '.md' AND f.deleted_at IS NULL),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.target_name AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.target_name || '.md' AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1),
               (SELECT fa.file_id
                  FROM file_aliases AS fa
                 CROSS JOIN LATERAL (
                       SELECT x.path
                         FROM files AS x
                        WHERE x.user_id = :user_id AND x.id = fa.file_id AND x.deleted_at IS NULL
                        LIMIT 1) AS f
                 WHERE fa.user_id = :user_id AND fa.alias = wanted.target_name
                 ORDER BY length(f.path), f.path, fa.file_id
                 LIMIT 1)) AS id
      FROM wanted
),
removed AS (
    DELETE FROM file_links AS l
     USING source
     WHERE l.user_id = :user_id AND l.source_file_id = source.id
       AND l.position > cardinality(:target_names)
),
stored AS (
    INSERT INTO file_links AS l (user_id, source_file_id, position, target_name, target_file_id, embed, fragment)
    SELECT :user_id, given.source_file_id, given.position, given.target_name, found.id, given.embed, given.fragment
      FROM given
      LEFT JOIN found ON found.target_name = given.target_name
        ON CONFLICT (user_id, source_file_id, position) DO UPDATE
       SET target_name = excluded.target_name, target_file_id = excluded.target_file_id,
           embed = excluded.embed, fragment = excluded.fragment
 RETURNING l.target_file_id
)
SELECT (SELECT count(stored.target_file_id) FROM stored) AS resolved FROM source;

-- name: resolve_links :many
-- What names stand for at present, in the order given; a row for each that stands for a file.
-- tenant: user_id
-- index: files_path_key, files_name_idx, file_aliases_alias_idx, files_pkey
WITH found AS MATERIALIZED (
    SELECT wanted.name, wanted.position,
           coalesce(
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.path = '/' || wanted.name AND f.deleted_at IS NULL),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.path = '/' || wanted.name || '.md' AND f.deleted_at IS NULL),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.name AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.name || '.md' AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1),
               (SELECT fa.file_id
                  FROM file_aliases AS fa
                 CROSS JOIN LATERAL (
                       SELECT x.path
                         FROM files AS x
                        WHERE x.user_id = :user_id AND x.id = fa.file_id AND x.deleted_at IS NULL
                        LIMIT 1) AS f
                 WHERE fa.user_id = :user_id AND fa.alias = wanted.name
                 ORDER BY length(f.path), f.path, fa.file_id
                 LIMIT 1)) AS id
      FROM unnest(:names::text[]) WITH ORDINALITY AS wanted (name, position)
)
SELECT found.name, f.id AS file_id, f.path
  FROM found
 CROSS JOIN LATERAL (
       SELECT x.id, x.path FROM files AS x WHERE x.user_id = :user_id AND x.id = found.id LIMIT 1) AS f
 ORDER BY found.position;

-- name: update_targets :one
-- Resolve again the links that files took part in: those which lead to them, and those which name
-- them now. The files are those given, and those at or under the paths, also what this transaction
-- has deleted there. Which files' links have changed, and which files are deleted.
-- Rows pass through arrays, of which the planner expects few: it would else read all links.
-- tenant: user_id
-- index: files_pkey, files_path_key, files_name_idx, files_deleted_path_idx, files_deleted_idx, file_aliases_pkey, file_aliases_alias_idx, file_links_pkey, file_links_name_idx, file_links_target_idx
WITH affected AS MATERIALIZED (
    SELECT f.user_id, f.id, f.path, false AS gone
      FROM unnest(:file_ids::uuid[]) AS given (id)
     CROSS JOIN LATERAL (
           SELECT x.user_id, x.id, x.path
             FROM files AS x
            WHERE x.user_id = :user_id AND x.id = given.id AND x.deleted_at IS NULL
            LIMIT 1) AS f
     UNION
    SELECT f.user_id, f.id, f.path, false
      FROM unnest(:paths::text[]) AS given (path)
      JOIN files AS f ON f.user_id = :user_id AND f.path = given.path
     WHERE f.deleted_at IS NULL
     UNION
    SELECT f.user_id, f.id, f.path, false
      FROM unnest(:paths) AS given (path)
      JOIN files AS f ON f.user_id = :user_id AND f.path >= given.path || '/' AND f.path < given.path || '0'
     WHERE f.deleted_at IS NULL
     UNION
    SELECT f.user_id, f.id, f.path, true
      FROM unnest(:paths) AS given (path)
      JOIN files AS f ON f.user_id = :user_id AND f.path = given.path
     WHERE f.deleted_at >= transaction_timestamp()
     UNION
    SELECT f.user_id, f.id, f.path, true
      FROM unnest(:paths) AS given (path)
      JOIN files AS f ON f.user_id = :user_id AND f.path >= given.path || '/' AND f.path < given.path || '0'
     WHERE f.deleted_at >= transaction_timestamp()
),
named AS MATERIALIZED (
    SELECT form.name
      FROM affected
     CROSS JOIN LATERAL (
           VALUES (substr(affected.path, 2)),
                  (regexp_replace(substr(affected.path, 2), '\.md$', '')),
                  (split_part(affected.path, '/', -1)),
                  (regexp_replace(split_part(affected.path, '/', -1), '\.md$', ''))) AS form (name)
     WHERE NOT affected.gone
     UNION
    SELECT fa.alias
      FROM unnest(ARRAY (SELECT affected.id FROM affected WHERE NOT affected.gone)) AS file (id)
      JOIN file_aliases AS fa ON fa.user_id = :user_id AND fa.file_id = file.id
),
touched AS MATERIALIZED (
    SELECT l.user_id, l.source_file_id, l.position, l.target_name, l.target_file_id
      FROM unnest(ARRAY (SELECT named.name FROM named)) AS form (name)
      JOIN file_links AS l ON l.user_id = :user_id AND l.target_name = form.name
     UNION
    SELECT l.user_id, l.source_file_id, l.position, l.target_name, l.target_file_id
      FROM unnest(ARRAY (SELECT affected.id FROM affected)) AS target (id)
      JOIN file_links AS l ON l.user_id = :user_id AND l.target_file_id = target.id
),
wanted AS MATERIALIZED (
    SELECT DISTINCT touched.target_name FROM touched
),
found AS MATERIALIZED (
    SELECT wanted.target_name,
           coalesce(
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.path = '/' || wanted.target_name AND f.deleted_at IS NULL),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.path = '/' || wanted.target_name || '.md' AND f.deleted_at IS NULL),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.target_name AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1),
               (SELECT f.id
                  FROM files AS f
                 WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.target_name || '.md' AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1),
               (SELECT fa.file_id
                  FROM file_aliases AS fa
                 CROSS JOIN LATERAL (
                       SELECT x.path
                         FROM files AS x
                        WHERE x.user_id = :user_id AND x.id = fa.file_id AND x.deleted_at IS NULL
                        LIMIT 1) AS f
                 WHERE fa.user_id = :user_id AND fa.alias = wanted.target_name
                 ORDER BY length(f.path), f.path, fa.file_id
                 LIMIT 1)) AS id
      FROM wanted
),
changed AS MATERIALIZED (
    SELECT touched.user_id, touched.source_file_id, touched.position, found.id
      FROM touched
      LEFT JOIN found ON found.target_name = touched.target_name
     WHERE touched.target_file_id IS DISTINCT FROM found.id
),
relinked AS (
    UPDATE file_links AS l
       SET target_file_id = picked.id
      FROM unnest(ARRAY (SELECT changed.user_id FROM changed), ARRAY (SELECT changed.source_file_id FROM changed),
                  ARRAY (SELECT changed.position FROM changed), ARRAY (SELECT changed.id FROM changed))
           AS picked (user_id, source_file_id, position, id)
     WHERE l.user_id = picked.user_id AND l.source_file_id = picked.source_file_id AND l.position = picked.position
)
SELECT ARRAY (SELECT DISTINCT changed.source_file_id FROM changed) AS changed,
       ARRAY (SELECT affected.id FROM affected WHERE affected.gone) AS gone;

-- name: list_links :page
-- The links in a file, in their order.
-- tenant: user_id
-- key: position
-- index: files_pkey, file_links_pkey
SELECT l.position, l.target_name, l.embed, l.fragment, l.target_file_id,
       (SELECT t.path FROM files AS t WHERE t.user_id = :user_id AND t.id = l.target_file_id) AS target_path
  FROM file_links AS l
  JOIN files AS s ON s.user_id = l.user_id AND s.id = l.source_file_id
 WHERE l.user_id = :user_id AND l.source_file_id = :file_id
   AND l.position > coalesce(:cursor_position::bigint, 0)
   AND s.deleted_at IS NULL
 ORDER BY l.position
 LIMIT :limit;

-- name: list_backlinks :page
-- The links that lead to a file.
-- tenant: user_id
-- key: source_file_id, position
-- index: files_pkey, file_links_target_idx
SELECT l.source_file_id, l.position, f.path AS source_path, l.target_name, l.embed, l.fragment
  FROM file_links AS l
 CROSS JOIN LATERAL (
       SELECT x.path
         FROM files AS x
        WHERE x.user_id = :user_id AND x.id = l.source_file_id AND x.deleted_at IS NULL
        LIMIT 1) AS f
 WHERE l.user_id = :user_id AND l.target_file_id = :file_id
   AND (l.source_file_id, l.position)
       > (coalesce(:cursor_source_file_id::uuid, '00000000-0000-0000-0000-000000000000'), coalesce(:cursor_position::bigint, 0))
 ORDER BY l.source_file_id, l.position
 LIMIT :limit;

-- name: list_unresolved_links :page
-- The links that lead nowhere, by what they name.
-- tenant: user_id
-- key: target_name, source_file_id, position
-- index: files_pkey, file_links_unresolved_idx
SELECT l.target_name, l.source_file_id, l.position, f.path AS source_path, l.embed, l.fragment
  FROM file_links AS l
 CROSS JOIN LATERAL (
       SELECT x.path
         FROM files AS x
        WHERE x.user_id = :user_id AND x.id = l.source_file_id AND x.deleted_at IS NULL
        LIMIT 1) AS f
 WHERE l.user_id = :user_id AND l.target_file_id IS NULL
   AND (l.target_name, l.source_file_id, l.position)
       > (coalesce(:cursor_target_name::text, ''), coalesce(:cursor_source_file_id::uuid, '00000000-0000-0000-0000-000000000000'), coalesce(:cursor_position::bigint, 0))
 ORDER BY l.target_name, l.source_file_id, l.position
 LIMIT :limit;
