-- Files: a path, and a reference to bytes in the object store. Bytes never move with them.

-- name: overwrite_file :maybe
-- A new version of the file at a path; its page is stale, and those of what embeds it.
-- No row means: nothing is there (any more), its content is not the one expected, or somebody has or
-- had the vault's lock meanwhile: then links and pages may be newer than what this statement sees.
-- The lock is taken only where there is a file.
-- tenant: user_id
-- index: vaults_pkey, files_path_key, file_links_target_idx, published_pages_pkey
WITH RECURSIVE shared AS MATERIALIZED (
    SELECT v.user_id
      FROM vaults AS v
     WHERE v.user_id = :user_id
       AND v.structure_version = (SELECT x.structure_version FROM vaults AS x WHERE x.user_id = :user_id)
       AND EXISTS (SELECT FROM files AS f
                    WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL)
       FOR SHARE OF v SKIP LOCKED
),
written AS (
    UPDATE files AS f
       SET version = f.version + 1, object_hash = :object_hash, size = :size,
           content_type = coalesce(:content_type::text, f.content_type), updated_at = greatest(statement_timestamp(), f.updated_at)
      FROM shared
     WHERE f.user_id = shared.user_id
       AND f.path = :path AND f.deleted_at IS NULL
       AND f.object_hash = coalesce(:if_match::text, f.object_hash)
 RETURNING f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
),
reached (file_id) AS (
    SELECT written.id FROM written
     UNION
    SELECT l.source_file_id
      FROM reached
      JOIN file_links AS l ON l.user_id = :user_id AND l.target_file_id = reached.file_id
     WHERE l.embed
),
locked AS MATERIALIZED (
    SELECT p.user_id, p.file_id
      FROM unnest((SELECT array_agg(reached.file_id ORDER BY reached.file_id) FROM reached)) AS page (file_id)
     CROSS JOIN LATERAL (
           SELECT x.user_id, x.file_id
             FROM published_pages AS x
            WHERE x.user_id = :user_id AND x.file_id = page.file_id
            LIMIT 1
              FOR NO KEY UPDATE) AS p
),
invalidated AS (
    UPDATE published_pages AS p
       SET invalidation = p.invalidation + 1
      FROM unnest(ARRAY (SELECT locked.user_id FROM locked), ARRAY (SELECT locked.file_id FROM locked)) AS picked (user_id, file_id)
     WHERE p.user_id = picked.user_id AND p.file_id = picked.file_id
),
recorded AS (
    INSERT INTO file_versions (user_id, file_id, version, object_hash, size, content_type, created_at)
    SELECT written.user_id, written.id, written.version, written.object_hash, written.size, written.content_type, written.updated_at
      FROM written
)
SELECT written.user_id, written.id, written.folder_id, written.path, written.version, written.object_hash, written.size, written.content_type, written.created_at, written.updated_at
  FROM written;

-- name: create_file :maybe
-- A file at a path where none is: the one that was last deleted there, revived, or a new one.
-- No row means refused: a folder has this path.
-- tenant: user_id
-- index: folders_path_key, files_deleted_path_idx, files_pkey
WITH room AS MATERIALIZED (
    SELECT given.user_id
      FROM (SELECT :user_id::bigint AS user_id) AS given
     WHERE NOT EXISTS (SELECT FROM folders AS f
                        WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL)
),
latest AS MATERIALIZED (
    SELECT f.id
      FROM files AS f
     WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NOT NULL
     ORDER BY f.deleted_at DESC, f.id DESC
     LIMIT 1
       FOR NO KEY UPDATE
),
revived AS (
    UPDATE files AS f
       SET deleted_at = NULL, deletion_id = NULL, folder_id = :folder_id, version = f.version + 1,
           object_hash = :object_hash, size = :size, content_type = :content_type, updated_at = greatest(statement_timestamp(), f.updated_at)
      FROM room
     CROSS JOIN latest
     WHERE f.user_id = room.user_id AND f.id = latest.id
 RETURNING f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
),
made AS (
    INSERT INTO files AS f (user_id, id, folder_id, path, object_hash, size, content_type)
    SELECT room.user_id, :file_id, :folder_id::uuid, :path, :object_hash, :size, :content_type
      FROM room
     WHERE NOT EXISTS (SELECT FROM latest)
 RETURNING f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
),
written AS (
    SELECT revived.user_id, revived.id, revived.folder_id, revived.path, revived.version, revived.object_hash, revived.size, revived.content_type, revived.created_at, revived.updated_at
      FROM revived
     UNION ALL
    SELECT made.user_id, made.id, made.folder_id, made.path, made.version, made.object_hash, made.size, made.content_type, made.created_at, made.updated_at
      FROM made
),
recorded AS (
    INSERT INTO file_versions (user_id, file_id, version, object_hash, size, content_type, created_at)
    SELECT written.user_id, written.id, written.version, written.object_hash, written.size, written.content_type, written.updated_at
      FROM written
)
SELECT written.user_id, written.id, written.folder_id, written.path, written.version, written.object_hash, written.size, written.content_type, written.created_at, written.updated_at
  FROM written;

-- name: get_file :maybe
-- One file, by its id.
-- tenant: user_id
-- index: files_pkey
SELECT f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
  FROM files AS f
 WHERE f.user_id = :user_id AND f.id = :file_id AND f.deleted_at IS NULL;

-- name: find_file_by_path :maybe
-- One file, by its path.
-- tenant: user_id
-- index: files_path_key
SELECT f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
  FROM files AS f
 WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL;

-- name: rename_file :maybe
-- Give a file another path.
-- tenant: user_id
-- index: files_path_key
UPDATE files AS f
   SET path = :to, folder_id = :folder_id
 WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL
RETURNING f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at;

-- name: trash_file :rows
-- Delete a file, so that it may come back.
-- tenant: user_id
-- index: files_path_key
UPDATE files AS f
   SET deleted_at = statement_timestamp(), deletion_id = :deletion_id, folder_id = NULL
 WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NULL;

-- name: untrash_file :maybe
-- Bring back the file that was last deleted at a path.
-- tenant: user_id
-- index: files_deleted_path_idx, files_pkey
WITH latest AS MATERIALIZED (
    SELECT f.id
      FROM files AS f
     WHERE f.user_id = :user_id AND f.path = :path AND f.deleted_at IS NOT NULL
     ORDER BY f.deleted_at DESC, f.id DESC
     LIMIT 1
       FOR NO KEY UPDATE
)
UPDATE files AS f
   SET deleted_at = NULL, deletion_id = NULL, folder_id = :folder_id
  FROM latest
 WHERE f.user_id = :user_id AND f.id = latest.id
RETURNING f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at;

-- name: count_files :value
-- How many files the vault has; reads them all in an index.
-- tenant: user_id
-- index: files_path_key, files_extension_idx, files_name_idx
SELECT count(*) AS files FROM files AS f WHERE f.user_id = :user_id AND f.deleted_at IS NULL;

-- name: vault_size :value
-- Bytes of the newest version of each file; reads all files of the vault.
-- tenant: user_id
-- index: files_path_key, files_extension_idx, files_name_idx
SELECT coalesce(sum(f.size), 0)::bigint AS bytes FROM files AS f WHERE f.user_id = :user_id AND f.deleted_at IS NULL;

-- name: list_markdown_files :page
-- The Markdown files (.md), by path.
-- tenant: user_id
-- key: path
-- index: files_extension_idx
SELECT f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
  FROM files AS f
 WHERE f.user_id = :user_id AND f.extension = 'md' AND f.deleted_at IS NULL
   AND f.path > coalesce(:cursor_path::text, '')
 ORDER BY f.path
 LIMIT :limit;

-- name: list_canvas_files :page
-- The canvases (.canvas), by path.
-- tenant: user_id
-- key: path
-- index: files_extension_idx
SELECT f.user_id, f.id, f.folder_id, f.path, f.version, f.object_hash, f.size, f.content_type, f.created_at, f.updated_at
  FROM files AS f
 WHERE f.user_id = :user_id AND f.extension = 'canvas' AND f.deleted_at IS NULL
   AND f.path > coalesce(:cursor_path::text, '')
 ORDER BY f.path
 LIMIT :limit;
