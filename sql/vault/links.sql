-- Links between files: each stored with the name that it was written with, and the file which that
-- name stands for.
--
-- A name stands for the file at that path, else for a file of that name, else for one with that
-- alias; with or without .md; of several the one with the shortest path, then the first in order.
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
    SELECT wanted.target_name, best.id
      FROM wanted
     CROSS JOIN LATERAL (
           SELECT candidate.id
             FROM ((SELECT f.id, f.path, 1 AS rank
                      FROM files AS f
                     WHERE f.user_id = :user_id AND f.path = '/' || wanted.target_name AND f.deleted_at IS NULL)
                    UNION ALL
                   (SELECT f.id, f.path, 1
                      FROM files AS f
                     WHERE f.user_id = :user_id AND f.path = '/' || wanted.target_name || '.md' AND f.deleted_at IS NULL)
                    UNION ALL
                   (SELECT f.id, f.path, 2
                      FROM files AS f
                     WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.target_name AND f.deleted_at IS NULL
                     ORDER BY length(f.path), f.path
                     LIMIT 1)
                    UNION ALL
                   (SELECT f.id, f.path, 2
                      FROM files AS f
                     WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.target_name || '.md' AND f.deleted_at IS NULL
                     ORDER BY length(f.path), f.path
                     LIMIT 1)
                    UNION ALL
                   (SELECT f.id, f.path, 3
                      FROM file_aliases AS fa
                      JOIN files AS f ON f.user_id = fa.user_id AND f.id = fa.file_id
                     WHERE fa.user_id = :user_id AND fa.alias = wanted.target_name AND f.deleted_at IS NULL
                     ORDER BY length(f.path), f.path
                     LIMIT 1)) AS candidate
            ORDER BY candidate.rank, length(candidate.path), candidate.path
            LIMIT 1) AS best
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
SELECT wanted.name, best.id AS file_id, best.path
  FROM unnest(:names::text[]) WITH ORDINALITY AS wanted (name, position)
 CROSS JOIN LATERAL (
       SELECT candidate.id, candidate.path
         FROM ((SELECT f.id, f.path, 1 AS rank
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.path = '/' || wanted.name AND f.deleted_at IS NULL)
                UNION ALL
               (SELECT f.id, f.path, 1
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.path = '/' || wanted.name || '.md' AND f.deleted_at IS NULL)
                UNION ALL
               (SELECT f.id, f.path, 2
                  FROM files AS f
                 WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.name AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1)
                UNION ALL
               (SELECT f.id, f.path, 2
                  FROM files AS f
                 WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.name || '.md' AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1)
                UNION ALL
               (SELECT f.id, f.path, 3
                  FROM file_aliases AS fa
                  JOIN files AS f ON f.user_id = fa.user_id AND f.id = fa.file_id
                 WHERE fa.user_id = :user_id AND fa.alias = wanted.name AND f.deleted_at IS NULL
                 ORDER BY length(f.path), f.path
                 LIMIT 1)) AS candidate
        ORDER BY candidate.rank, length(candidate.path), candidate.path
        LIMIT 1) AS best
 ORDER BY wanted.position;

-- name: update_targets :value
-- Resolve again the links that files took part in: those which lead to them, and those which name
-- them now. The files are those given, those at or under the paths, and those which this
-- transaction has deleted; the pages of the last are withdrawn. Which files' links have changed.
-- tenant: user_id
-- index: files_pkey, files_path_key, files_name_idx, files_deleted_idx, file_aliases_pkey, file_aliases_alias_idx, file_links_pkey, file_links_name_idx, file_links_target_idx, published_pages_pkey
WITH affected AS MATERIALIZED (
    SELECT f.id, f.path, false AS gone
      FROM unnest(:file_ids::uuid[]) AS given (id)
      JOIN files AS f ON f.user_id = :user_id AND f.id = given.id
     WHERE f.deleted_at IS NULL
     UNION
    SELECT f.id, f.path, false
      FROM unnest(:paths::text[]) AS given (path)
      JOIN files AS f ON f.user_id = :user_id AND f.path = given.path
     WHERE f.deleted_at IS NULL
     UNION
    SELECT f.id, f.path, false
      FROM unnest(:paths) AS given (path)
      JOIN files AS f ON f.user_id = :user_id AND f.path >= given.path || '/' AND f.path < given.path || '0'
     WHERE f.deleted_at IS NULL
     UNION
    SELECT f.id, f.path, true
      FROM files AS f
     WHERE f.user_id = :user_id AND f.deleted_at >= transaction_timestamp()
),
withdrawn AS (
    UPDATE published_pages AS p
       SET permalink = NULL, title = NULL, html = NULL, published_at = NULL,
           invalidation = p.invalidation + 1, withdrawn = p.invalidation + 1
      FROM affected
     WHERE affected.gone
       AND p.user_id = :user_id AND p.file_id = affected.id
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
      FROM affected
      JOIN file_aliases AS fa ON fa.user_id = :user_id AND fa.file_id = affected.id
     WHERE NOT affected.gone
),
touched AS MATERIALIZED (
    SELECT l.source_file_id, l.position, l.target_name, l.target_file_id
      FROM named
      JOIN file_links AS l ON l.user_id = :user_id AND l.target_name = named.name
     UNION
    SELECT l.source_file_id, l.position, l.target_name, l.target_file_id
      FROM affected
      JOIN file_links AS l ON l.user_id = :user_id AND l.target_file_id = affected.id
),
wanted AS MATERIALIZED (
    SELECT DISTINCT touched.target_name FROM touched
),
found AS MATERIALIZED (
    SELECT wanted.target_name, best.id
      FROM wanted
     CROSS JOIN LATERAL (
           SELECT candidate.id
             FROM ((SELECT f.id, f.path, 1 AS rank
                      FROM files AS f
                     WHERE f.user_id = :user_id AND f.path = '/' || wanted.target_name AND f.deleted_at IS NULL)
                    UNION ALL
                   (SELECT f.id, f.path, 1
                      FROM files AS f
                     WHERE f.user_id = :user_id AND f.path = '/' || wanted.target_name || '.md' AND f.deleted_at IS NULL)
                    UNION ALL
                   (SELECT f.id, f.path, 2
                      FROM files AS f
                     WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.target_name AND f.deleted_at IS NULL
                     ORDER BY length(f.path), f.path
                     LIMIT 1)
                    UNION ALL
                   (SELECT f.id, f.path, 2
                      FROM files AS f
                     WHERE f.user_id = :user_id AND split_part(f.path, '/', -1) = wanted.target_name || '.md' AND f.deleted_at IS NULL
                     ORDER BY length(f.path), f.path
                     LIMIT 1)
                    UNION ALL
                   (SELECT f.id, f.path, 3
                      FROM file_aliases AS fa
                      JOIN files AS f ON f.user_id = fa.user_id AND f.id = fa.file_id
                     WHERE fa.user_id = :user_id AND fa.alias = wanted.target_name AND f.deleted_at IS NULL
                     ORDER BY length(f.path), f.path
                     LIMIT 1)) AS candidate
            ORDER BY candidate.rank, length(candidate.path), candidate.path
            LIMIT 1) AS best
),
changed AS MATERIALIZED (
    SELECT touched.source_file_id, touched.position, found.id
      FROM touched
      LEFT JOIN found ON found.target_name = touched.target_name
     WHERE touched.target_file_id IS DISTINCT FROM found.id
),
relinked AS (
    UPDATE file_links AS l
       SET target_file_id = changed.id
      FROM changed
     WHERE l.user_id = :user_id AND l.source_file_id = changed.source_file_id AND l.position = changed.position
)
SELECT ARRAY (SELECT DISTINCT changed.source_file_id FROM changed ORDER BY changed.source_file_id) AS sources;

-- name: list_links :page
-- The links in a file, in their order.
-- tenant: user_id
-- key: position
-- index: files_pkey, file_links_pkey
SELECT l.position, l.target_name, l.embed, l.fragment, l.target_file_id, t.path AS target_path
  FROM file_links AS l
  JOIN files AS s ON s.user_id = l.user_id AND s.id = l.source_file_id
  LEFT JOIN files AS t ON t.user_id = l.user_id AND t.id = l.target_file_id
 WHERE l.user_id = :user_id AND l.source_file_id = :file_id
   AND l.position > coalesce(:cursor_position, 0)
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
  JOIN files AS f ON f.user_id = l.user_id AND f.id = l.source_file_id
 WHERE l.user_id = :user_id AND l.target_file_id = :file_id
   AND (l.source_file_id, l.position)
       > (coalesce(:cursor_source_file_id, '00000000-0000-0000-0000-000000000000'), coalesce(:cursor_position, 0))
   AND f.deleted_at IS NULL
 ORDER BY l.source_file_id, l.position
 LIMIT :limit;

-- name: list_unresolved_links :page
-- The links that lead nowhere, by what they name.
-- tenant: user_id
-- key: target_name, source_file_id, position
-- index: files_pkey, file_links_unresolved_idx
SELECT l.target_name, l.source_file_id, l.position, f.path AS source_path, l.embed, l.fragment
  FROM file_links AS l
  JOIN files AS f ON f.user_id = l.user_id AND f.id = l.source_file_id
 WHERE l.user_id = :user_id AND l.target_file_id IS NULL
   AND (l.target_name, l.source_file_id, l.position)
       > (coalesce(:cursor_target_name, ''), coalesce(:cursor_source_file_id, '00000000-0000-0000-0000-000000000000'), coalesce(:cursor_position, 0))
   AND f.deleted_at IS NULL
 ORDER BY l.target_name, l.source_file_id, l.position
 LIMIT :limit;
