-- Published pages: a file as it was rendered, at a permalink below its user's name.
--
-- Counters, and not times, say whether a rendering is stale: who renders notes the counter before
-- it reads anything, and publishes with it. Whoever publishes locks the vault first; whoever changes
-- pages locks all of them by one statement, in the order of file_id.

-- name: get_invalidation :value
-- The counter of a page that was rendered before.
-- tenant: user_id
-- index: published_pages_pkey, files_pkey
SELECT p.invalidation
  FROM published_pages AS p
  JOIN files AS f ON f.user_id = p.user_id AND f.id = p.file_id
 WHERE p.user_id = :user_id AND p.file_id = :file_id AND f.deleted_at IS NULL;

-- name: insert_page :value
-- The row of a page that is rendered for the first time, and its counter. No row: no such file.
-- tenant: user_id
-- index: published_pages_pkey, files_pkey
INSERT INTO published_pages AS p (user_id, file_id)
SELECT f.user_id, f.id FROM files AS f WHERE f.user_id = :user_id AND f.id = :file_id AND f.deleted_at IS NULL
    ON CONFLICT (user_id, file_id) DO UPDATE SET file_id = excluded.file_id
RETURNING p.invalidation;

-- name: store_page :maybe
-- Publish a rendering, unless it is older than the one that stands, or than an unpublishing.
-- Where the permalink changes, whatever links here is stale, and what embeds that.
-- No row: refused, or no such page.
-- tenant: user_id
-- index: published_pages_pkey, files_pkey, file_links_target_idx
WITH RECURSIVE reached (file_id) AS (
    SELECT l.source_file_id
      FROM published_pages AS p
      JOIN file_links AS l ON l.user_id = p.user_id AND l.target_file_id = p.file_id
     WHERE p.user_id = :user_id AND p.file_id = :file_id AND p.permalink IS DISTINCT FROM :permalink
     UNION
    SELECT l.source_file_id
      FROM reached
      JOIN file_links AS l ON l.user_id = :user_id AND l.target_file_id = reached.file_id
     WHERE l.embed
),
locked AS MATERIALIZED (
    SELECT p.user_id, p.file_id
      FROM unnest((SELECT array_agg(page.file_id ORDER BY page.file_id)
                     FROM (SELECT :file_id::uuid AS file_id
                            UNION
                           SELECT reached.file_id FROM reached) AS page)) AS page (file_id)
     CROSS JOIN LATERAL (
           SELECT x.user_id, x.file_id
             FROM published_pages AS x
            WHERE x.user_id = :user_id AND x.file_id = page.file_id
            LIMIT 1
              FOR NO KEY UPDATE) AS p
),
published AS (
    UPDATE published_pages AS p
       SET permalink = :permalink, title = :title::text, html = :html, published_at = statement_timestamp(),
           rendered = :invalidation
      FROM locked
      JOIN files AS f ON f.user_id = :user_id AND f.id = locked.file_id
     WHERE p.user_id = :user_id AND p.file_id = :file_id AND locked.file_id = :file_id
       AND f.deleted_at IS NULL
       AND :invalidation::bigint BETWEEN greatest(p.rendered, p.withdrawn) AND p.invalidation
 RETURNING p.user_id, p.file_id, p.permalink, p.title, p.html, p.published_at, p.rendered < p.invalidation AS is_stale
),
invalidated AS (
    UPDATE published_pages AS p
       SET invalidation = p.invalidation + 1
      FROM unnest(ARRAY (SELECT locked.user_id FROM locked), ARRAY (SELECT locked.file_id FROM locked)) AS other (user_id, file_id)
     WHERE p.user_id = other.user_id AND p.file_id = other.file_id AND p.file_id <> :file_id
       AND EXISTS (SELECT FROM published)
)
SELECT published.user_id, published.file_id, published.permalink, published.title, published.html, published.published_at, published.is_stale
  FROM published;

-- name: withdraw_page :value
-- Withdraw a page, and refuse whatever is being rendered for it; was it published?
-- Whatever links here is stale, and what embeds that.
-- tenant: user_id
-- index: published_pages_pkey, file_links_target_idx
WITH RECURSIVE reached (file_id) AS (
    SELECT l.source_file_id
      FROM file_links AS l
     WHERE l.user_id = :user_id AND l.target_file_id = :file_id
     UNION
    SELECT l.source_file_id
      FROM reached
      JOIN file_links AS l ON l.user_id = :user_id AND l.target_file_id = reached.file_id
     WHERE l.embed
),
locked AS MATERIALIZED (
    SELECT p.user_id, p.file_id, p.permalink IS NOT NULL AS is_published
      FROM unnest((SELECT array_agg(page.file_id ORDER BY page.file_id)
                     FROM (SELECT :file_id::uuid AS file_id
                            UNION
                           SELECT reached.file_id FROM reached) AS page)) AS page (file_id)
     CROSS JOIN LATERAL (
           SELECT x.user_id, x.file_id, x.permalink
             FROM published_pages AS x
            WHERE x.user_id = :user_id AND x.file_id = page.file_id
            LIMIT 1
              FOR NO KEY UPDATE) AS p
),
withdrawn AS (
    UPDATE published_pages AS p
       SET permalink = NULL, title = NULL, html = NULL, published_at = NULL,
           invalidation = p.invalidation + 1, withdrawn = p.invalidation + 1
      FROM locked
     WHERE p.user_id = :user_id AND p.file_id = :file_id AND locked.file_id = :file_id
),
invalidated AS (
    UPDATE published_pages AS p
       SET invalidation = p.invalidation + 1
      FROM unnest(ARRAY (SELECT locked.user_id FROM locked), ARRAY (SELECT locked.file_id FROM locked)) AS other (user_id, file_id)
     WHERE p.user_id = other.user_id AND p.file_id = other.file_id AND p.file_id <> :file_id
       AND EXISTS (SELECT FROM locked AS own WHERE own.file_id = :file_id AND own.is_published)
)
SELECT EXISTS (SELECT FROM locked WHERE locked.file_id = :file_id AND locked.is_published) AS was_published;

-- name: invalidate_pages :rows
-- These files changed: their pages are stale, those of what embeds them, and so on, in circles too.
-- Along links, those that link to them as well: for where they lead, or what they are called.
-- Pages of files that are gone are withdrawn.
-- tenant: user_id
-- index: published_pages_pkey, file_links_target_idx
WITH RECURSIVE reached (file_id) AS (
    (SELECT changed.file_id
       FROM unnest(:file_ids::uuid[]) AS changed (file_id)
      UNION
     SELECT l.source_file_id
       FROM unnest(:file_ids) AS changed (file_id)
       JOIN file_links AS l ON l.user_id = :user_id AND l.target_file_id = changed.file_id
      WHERE :along_links)
     UNION
    SELECT l.source_file_id
      FROM reached
      JOIN file_links AS l ON l.user_id = :user_id AND l.target_file_id = reached.file_id
     WHERE l.embed
),
locked AS MATERIALIZED (
    SELECT p.user_id, p.file_id
      FROM unnest((SELECT array_agg(page.file_id ORDER BY page.file_id)
                     FROM (SELECT reached.file_id FROM reached
                            UNION
                           SELECT gone.file_id FROM unnest(:gone_ids::uuid[]) AS gone (file_id)) AS page)) AS page (file_id)
     CROSS JOIN LATERAL (
           SELECT x.user_id, x.file_id
             FROM published_pages AS x
            WHERE x.user_id = :user_id AND x.file_id = page.file_id
            LIMIT 1
              FOR NO KEY UPDATE) AS p
),
withdrawn AS (
    UPDATE published_pages AS p
       SET permalink = NULL, title = NULL, html = NULL, published_at = NULL,
           invalidation = p.invalidation + 1, withdrawn = p.invalidation + 1
      FROM unnest(ARRAY (SELECT locked.user_id FROM locked WHERE locked.file_id = ANY (:gone_ids)),
                  ARRAY (SELECT locked.file_id FROM locked WHERE locked.file_id = ANY (:gone_ids))) AS picked (user_id, file_id)
     WHERE p.user_id = picked.user_id AND p.file_id = picked.file_id
)
UPDATE published_pages AS p
   SET invalidation = p.invalidation + 1
  FROM unnest(ARRAY (SELECT locked.user_id FROM locked WHERE locked.file_id <> ALL (:gone_ids)),
              ARRAY (SELECT locked.file_id FROM locked WHERE locked.file_id <> ALL (:gone_ids))) AS picked (user_id, file_id)
 WHERE p.user_id = picked.user_id AND p.file_id = picked.file_id;

-- name: find_page :maybe
-- A page, by the name of its user and its permalink, for anybody.
-- tenant: none (a page is for everybody; its user is found by name)
-- not-null: html (what has a permalink has it: published_pages_published_check)
-- not-null: published_at (the same)
-- index: users_username_key, published_pages_permalink_key, files_pkey
SELECT p.user_id, p.file_id, p.permalink, p.title, p.html, p.published_at, p.rendered < p.invalidation AS is_stale
  FROM users AS u
  JOIN published_pages AS p ON p.user_id = u.id
  JOIN files AS f ON f.user_id = p.user_id AND f.id = p.file_id
 WHERE u.username_key = lower(:username::text COLLATE "C") AND u.is_active
   AND p.permalink = :permalink
   AND f.deleted_at IS NULL;

-- name: list_published :page
-- The pages of a user, by permalink.
-- tenant: user_id
-- key: permalink
-- not-null: published_at (what has a permalink has it: published_pages_published_check)
-- index: published_pages_permalink_key, files_pkey
SELECT p.file_id, p.permalink, p.title, p.published_at, p.rendered < p.invalidation AS is_stale
  FROM published_pages AS p
 CROSS JOIN LATERAL (
       SELECT x.id FROM files AS x WHERE x.user_id = :user_id AND x.id = p.file_id AND x.deleted_at IS NULL LIMIT 1) AS f
 WHERE p.user_id = :user_id AND p.permalink > coalesce(:cursor_permalink::text, '')
 ORDER BY p.permalink
 LIMIT :limit;

-- name: list_stale_pages :page
-- The published pages of a user that are to be rendered again.
-- tenant: user_id
-- key: file_id
-- not-null: published_at (what has a permalink has it: published_pages_published_check)
-- index: published_pages_stale_idx, files_pkey
SELECT p.file_id, p.permalink, p.title, p.published_at, p.rendered < p.invalidation AS is_stale
  FROM published_pages AS p
 CROSS JOIN LATERAL (
       SELECT x.id FROM files AS x WHERE x.user_id = :user_id AND x.id = p.file_id AND x.deleted_at IS NULL LIMIT 1) AS f
 WHERE p.user_id = :user_id AND p.permalink IS NOT NULL AND p.rendered < p.invalidation
   AND p.file_id > coalesce(:cursor_file_id::uuid, '00000000-0000-0000-0000-000000000000')
 ORDER BY p.file_id
 LIMIT :limit;

-- name: list_all_stale_pages :page
-- The published pages of all users that are to be rendered again; those of deleted files are withdrawn.
-- tenant: none (workers serve all users)
-- key: user_id, file_id
-- not-null: published_at (what has a permalink has it: published_pages_published_check)
-- index: published_pages_stale_idx
SELECT p.file_id, p.permalink, p.title, p.published_at, p.rendered < p.invalidation AS is_stale, p.user_id
  FROM published_pages AS p
 WHERE p.permalink IS NOT NULL AND p.rendered < p.invalidation
   AND (p.user_id, p.file_id)
       > (coalesce(:cursor_user_id::bigint, 0), coalesce(:cursor_file_id::uuid, '00000000-0000-0000-0000-000000000000'))
 ORDER BY p.user_id, p.file_id
 LIMIT :limit;
