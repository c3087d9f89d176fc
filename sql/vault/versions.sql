-- Versions: everything that was ever written to a file, numbered 1, 2, 3, ...

-- name: list_versions :page
-- The versions of a file, newest first; of a deleted one too, until it is purged.
-- tenant: user_id
-- key: version
-- index: file_versions_pkey
SELECT v.user_id, v.file_id, v.version, v.object_hash, v.size, v.content_type, v.created_at
  FROM file_versions AS v
 WHERE v.user_id = :user_id AND v.file_id = :file_id
   AND v.version < coalesce(:cursor_version, 9223372036854775807)
 ORDER BY v.version DESC
 LIMIT :limit;

-- name: get_version :maybe
-- One version of a file.
-- tenant: user_id
-- index: file_versions_pkey
SELECT v.user_id, v.file_id, v.version, v.object_hash, v.size, v.content_type, v.created_at
  FROM file_versions AS v
 WHERE v.user_id = :user_id AND v.file_id = :file_id AND v.version = :version;

-- name: rewrite_version :maybe
-- The content of an old version becomes the newest; what was newest stays a version. The file's page
-- is stale, and those of what embeds it.
-- No row means: no such version, or the vault's lock was in the way, as for overwrite_file.
-- tenant: user_id
-- index: vaults_pkey, file_versions_pkey, files_pkey, file_links_target_idx, published_pages_pkey
WITH RECURSIVE shared AS MATERIALIZED (
    SELECT v.user_id
      FROM vaults AS v
     WHERE v.user_id = :user_id
       AND v.structure_version = (SELECT x.structure_version FROM vaults AS x WHERE x.user_id = :user_id)
       FOR SHARE OF v SKIP LOCKED
),
written AS (
    UPDATE files AS f
       SET version = f.version + 1, object_hash = old.object_hash, size = old.size,
           content_type = old.content_type, updated_at = greatest(statement_timestamp(), f.updated_at)
      FROM shared
      JOIN file_versions AS old ON old.user_id = shared.user_id
     WHERE f.user_id = :user_id AND f.id = :file_id AND f.deleted_at IS NULL
       AND old.user_id = :user_id AND old.file_id = :file_id AND old.version = :version
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
