-- Folders, and whole trees of them. The root is no row: it is the empty path.
--
-- What changes structure locks the vault in a statement of its own and goes on in the next: a lock
-- inside the changing statement would leave it with the snapshot from before the wait. A tree is
-- its top, by its path, and the range below it: `path >= p || '/' AND path < p || '0'`.

-- name: make_folders :value
-- Make what is missing of a folder and of those around it, outermost first; the innermost's id.
-- No row means refused: a file has one of these paths.
-- tenant: user_id
-- index: folders_path_key, files_path_key
WITH blocked AS MATERIALIZED (
    SELECT f.id
      FROM unnest(:paths::text[]) AS given (path)
     CROSS JOIN LATERAL (
           SELECT x.id
             FROM files AS x
            WHERE x.user_id = :user_id AND x.path = given.path AND x.deleted_at IS NULL
            LIMIT 1) AS f
),
chain AS MATERIALIZED (
    SELECT given.path, given.ordinal, coalesce(f.id, given.id) AS id, f.id IS NULL AS is_missing
      FROM unnest(:paths::text[], :ids::uuid[]) WITH ORDINALITY AS given (path, id, ordinal)
      LEFT JOIN LATERAL (
           SELECT x.id
             FROM folders AS x
            WHERE x.user_id = :user_id AND x.path = given.path AND x.deleted_at IS NULL
            LIMIT 1) AS f ON true
     WHERE NOT EXISTS (SELECT FROM blocked)
),
made AS (
    INSERT INTO folders (user_id, id, parent_id, path)
    SELECT :user_id, chain.id, parent.id, chain.path
      FROM chain
      LEFT JOIN chain AS parent ON parent.ordinal = chain.ordinal - 1
     WHERE chain.is_missing
)
SELECT chain.id FROM chain ORDER BY chain.ordinal DESC LIMIT 1;

-- name: get_folder :maybe
-- The folder at a path.
-- tenant: user_id
-- index: folders_path_key
SELECT f.user_id, f.id, f.parent_id, f.path, f.created_at, f.updated_at
  FROM folders AS f
 WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL;

-- name: find_entry :maybe
-- Whatever has a path: a folder or a file, never both.
-- tenant: user_id
-- index: folders_path_key, files_path_key
SELECT entry.kind, entry.id
  FROM (SELECT 'folder' AS kind, f.id
          FROM folders AS f
         WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL
         UNION ALL
        SELECT 'file', f.id
          FROM files AS f
         WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL) AS entry
 ORDER BY entry.kind
 LIMIT 1;

-- name: list_folder :page
-- The folders and files directly in a folder, by path; index ranges of `limit` rows each.
-- No row means refused: there is no such folder.
-- tenant: user_id
-- key: path (a file and a folder never share one: both are made under the vault's lock)
-- index: folders_path_key, folders_parent_idx, folders_root_idx, files_folder_idx, files_root_idx
SELECT page.kind, page.id, page.path, page.object_hash, page.size, page.content_type, page.created_at, page.updated_at
  FROM (SELECT f.id
          FROM folders AS f
         WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL
         UNION ALL
        SELECT NULL WHERE :path = '') AS folder
  LEFT JOIN LATERAL (
       SELECT entry.kind, entry.id, entry.path, entry.object_hash, entry.size, entry.content_type, entry.created_at, entry.updated_at
         FROM ((SELECT 'folder' AS kind, f.id, f.path, NULL AS object_hash, NULL::bigint AS size, NULL AS content_type, f.created_at, f.updated_at
                  FROM folders AS f
                 WHERE f.user_id = :user_id AND f.parent_id = folder.id AND f.deleted_at IS NULL
                   AND f.path > coalesce(:cursor_path::text, '')
                 ORDER BY f.path
                 LIMIT :limit)
                UNION ALL
               (SELECT 'folder', f.id, f.path, NULL, NULL, NULL, f.created_at, f.updated_at
                  FROM folders AS f
                 WHERE f.user_id = :user_id AND f.parent_id IS NULL AND f.deleted_at IS NULL AND folder.id IS NULL
                   AND f.path > coalesce(:cursor_path::text, '')
                 ORDER BY f.path
                 LIMIT :limit)
                UNION ALL
               (SELECT 'file', f.id, f.path, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.folder_id = folder.id AND f.deleted_at IS NULL
                   AND f.path > coalesce(:cursor_path::text, '')
                 ORDER BY f.path
                 LIMIT :limit)
                UNION ALL
               (SELECT 'file', f.id, f.path, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.folder_id IS NULL AND f.deleted_at IS NULL AND folder.id IS NULL
                   AND f.path > coalesce(:cursor_path::text, '')
                 ORDER BY f.path
                 LIMIT :limit)) AS entry
        ORDER BY entry.path
        LIMIT :limit) AS page ON true
 ORDER BY page.path;

-- name: list_tree :page
-- The folders and files below a folder, however deep, by path.
-- No row means refused: there is no such folder.
-- tenant: user_id
-- key: path (a file and a folder never share one: both are made under the vault's lock)
-- index: folders_path_key, files_path_key
SELECT page.kind, page.id, page.path, page.object_hash, page.size, page.content_type, page.created_at, page.updated_at
  FROM (SELECT f.id
          FROM folders AS f
         WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL
         UNION ALL
        SELECT NULL WHERE :path = '') AS folder
  LEFT JOIN LATERAL (
       SELECT entry.kind, entry.id, entry.path, entry.object_hash, entry.size, entry.content_type, entry.created_at, entry.updated_at
         FROM ((SELECT 'folder' AS kind, f.id, f.path, NULL AS object_hash, NULL::bigint AS size, NULL AS content_type, f.created_at, f.updated_at
                  FROM folders AS f
                 WHERE f.user_id = :user_id AND f.deleted_at IS NULL
                   AND f.path >= :path || '/' AND f.path < :path || '0'
                   AND f.path > coalesce(:cursor_path::text, '')
                 ORDER BY f.path
                 LIMIT :limit)
                UNION ALL
               (SELECT 'file', f.id, f.path, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
                  FROM files AS f
                 WHERE f.user_id = :user_id AND f.deleted_at IS NULL
                   AND f.path >= :path || '/' AND f.path < :path || '0'
                   AND f.path > coalesce(:cursor_path::text, '')
                 ORDER BY f.path
                 LIMIT :limit)) AS entry
        ORDER BY entry.path
        LIMIT :limit) AS page ON true
 ORDER BY page.path;

-- name: move_tree :maybe
-- Give a folder another path, and all below it with it. Bytes stay where they are.
-- tenant: user_id
-- index: folders_path_key, files_path_key
WITH below AS (
    UPDATE folders AS f
       SET path = :to || substr(f.path, length(:path) + 1)
     WHERE f.user_id = :user_id AND f.deleted_at IS NULL
       AND f.path >= :path || '/' AND f.path < :path || '0'
),
files_below AS (
    UPDATE files AS f
       SET path = :to || substr(f.path, length(:path) + 1)
     WHERE f.user_id = :user_id AND f.deleted_at IS NULL
       AND f.path >= :path || '/' AND f.path < :path || '0'
)
UPDATE folders AS f
   SET path = :to, parent_id = :parent_id, updated_at = statement_timestamp()
 WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL
RETURNING f.user_id, f.id, f.parent_id, f.path, f.created_at, f.updated_at;

-- name: delete_tree :value
-- Delete a folder and all that is in it, so that it may come back; how many folders and files that were.
-- tenant: user_id
-- index: folders_path_key, files_path_key
WITH top AS (
    UPDATE folders AS f
       SET deleted_at = statement_timestamp(), deletion_id = :deletion_id, parent_id = NULL
     WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL
 RETURNING f.id
),
below AS (
    UPDATE folders AS f
       SET deleted_at = statement_timestamp(), deletion_id = :deletion_id, parent_id = NULL
     WHERE f.user_id = :user_id AND f.deleted_at IS NULL
       AND f.path >= :path || '/' AND f.path < :path || '0'
 RETURNING f.id
),
files_below AS (
    UPDATE files AS f
       SET deleted_at = statement_timestamp(), deletion_id = :deletion_id, folder_id = NULL
     WHERE f.user_id = :user_id AND f.deleted_at IS NULL
       AND f.path >= :path || '/' AND f.path < :path || '0'
 RETURNING f.id
)
SELECT (SELECT count(*) FROM top) + (SELECT count(*) FROM below) + (SELECT count(*) FROM files_below) AS deleted;

-- name: find_deleted_folder :maybe
-- The folder that was last deleted at a path, and which deletion that was.
-- tenant: user_id
-- index: folders_deleted_path_idx
-- not-null: deletion_id (what is deleted has one: folders_deleted_check)
SELECT f.id, f.deletion_id
  FROM folders AS f
 WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NOT NULL
 ORDER BY f.deleted_at DESC, f.id DESC
 LIMIT 1;

-- name: restore_tree :maybe
-- Bring a folder back, and of what is below its path all that went in the same deletion.
-- What a row was in is found by its path: the folder that comes back with it.
-- tenant: user_id
-- index: folders_pkey, folders_deleted_path_idx, files_deleted_path_idx
WITH below AS (
    UPDATE folders AS f
       SET deleted_at = NULL, deletion_id = NULL,
           parent_id = (SELECT p.id
                          FROM folders AS p
                         WHERE p.user_id = :user_id AND p.deleted_at IS NOT NULL
                           AND p.path = left(f.path, -strpos(reverse(f.path), '/'))
                           AND p.deletion_id = :deletion_id)
     WHERE f.user_id = :user_id AND f.deleted_at IS NOT NULL
       AND f.path >= :path || '/' AND f.path < :path || '0'
       AND f.deletion_id = :deletion_id
),
files_below AS (
    UPDATE files AS f
       SET deleted_at = NULL, deletion_id = NULL,
           folder_id = (SELECT p.id
                          FROM folders AS p
                         WHERE p.user_id = :user_id AND p.deleted_at IS NOT NULL
                           AND p.path = left(f.path, -strpos(reverse(f.path), '/'))
                           AND p.deletion_id = :deletion_id)
     WHERE f.user_id = :user_id AND f.deleted_at IS NOT NULL
       AND f.path >= :path || '/' AND f.path < :path || '0'
       AND f.deletion_id = :deletion_id
)
UPDATE folders AS f
   SET deleted_at = NULL, deletion_id = NULL, parent_id = :parent_id
 WHERE f.user_id = :user_id AND f.id = :folder_id
RETURNING f.user_id, f.id, f.parent_id, f.path, f.created_at, f.updated_at;

-- name: purge_trees :value
-- Remove what was deleted before a time, the longest deleted first: files with all their versions,
-- then, when no file is left, folders, what is inside before what it is in; how many that were.
-- tenant: user_id
-- index: files_deleted_idx, folders_deleted_idx, files_pkey, folders_pkey
WITH doomed AS MATERIALIZED (
    SELECT f.id
      FROM files AS f
     WHERE f.user_id = :user_id AND f.deleted_at < :deleted_before
     ORDER BY f.deleted_at, f.id
     LIMIT :limit
       FOR UPDATE
),
doomed_folders AS MATERIALIZED (
    SELECT f.id
      FROM folders AS f
     WHERE f.user_id = :user_id AND f.deleted_at < :deleted_before
     ORDER BY f.deleted_at, f.path DESC, f.id
     LIMIT :limit - (SELECT count(*) FROM doomed)
       FOR UPDATE
),
purged AS (
    DELETE FROM files AS f
     WHERE f.user_id = :user_id AND f.id = ANY (ARRAY (SELECT doomed.id FROM doomed))
 RETURNING f.id
),
purged_folders AS (
    DELETE FROM folders AS f
     WHERE f.user_id = :user_id AND f.id = ANY (ARRAY (SELECT doomed_folders.id FROM doomed_folders))
 RETURNING f.id
)
SELECT (SELECT count(*) FROM purged) + (SELECT count(*) FROM purged_folders) AS purged;
