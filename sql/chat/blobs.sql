-- Blobs: references from an uploader, and perhaps a conversation, to objects.
--
-- A reader is admitted by having uploaded the bytes, or by a conversation that they were uploaded to.

-- name: insert_own_blob :one
-- Refer to an object for its uploader alone; or return the blob that they made of it before.
-- tenant: uploaded_by_did
-- index: blobs_convo_id_cid_uploaded_by_did_key
INSERT INTO blobs AS b (uploaded_by_did, id, cid, mime_type, size, object_hash)
VALUES (:uploaded_by_did, :id, :cid, :mime_type, :size, :object_hash)
    ON CONFLICT (convo_id, cid, uploaded_by_did) DO UPDATE SET size = excluded.size
RETURNING b.id, b.cid, b.uploaded_by_did, b.convo_id, b.mime_type, b.size, b.created_at;

-- name: insert_shared_blob :maybe
-- Refer to an object in a conversation; or return the blob that this uploader made of it there before.
-- No row means refused: not an active member.
-- tenant: convo_id
-- actor: uploaded_by_did
-- index: members_pkey, members_member_did_idx, blobs_convo_id_cid_uploaded_by_did_key
INSERT INTO blobs AS b (uploaded_by_did, id, cid, convo_id, mime_type, size, object_hash)
SELECT m.member_did, :id, :cid, m.convo_id, :mime_type, :size, :object_hash
  FROM members AS m
 WHERE m.convo_id = :convo_id AND m.member_did = :uploaded_by_did AND m.left_at IS NULL
    ON CONFLICT (convo_id, cid, uploaded_by_did) DO UPDATE SET size = excluded.size
RETURNING b.id, b.cid, b.uploaded_by_did, b.convo_id, b.mime_type, b.size, b.created_at;

-- name: find_blob :maybe
-- The object with this CID that a reader may read: their own, or one of a conversation they are in.
-- tenant: reader_did
-- actor: reader_did
-- index: blobs_pkey, members_member_did_idx, blobs_convo_id_cid_uploaded_by_did_key
WITH own AS (
    SELECT b.cid, b.object_hash
      FROM blobs AS b
     WHERE b.uploaded_by_did = :reader_did AND b.cid = :cid
     ORDER BY b.id
     LIMIT 1
),
shared AS (
    SELECT found.cid, found.object_hash
      FROM members AS m
     CROSS JOIN LATERAL (
           SELECT b.cid, b.object_hash
             FROM blobs AS b
            WHERE b.convo_id = m.convo_id AND b.cid = :cid
            ORDER BY b.uploaded_by_did
            LIMIT 1) AS found
     WHERE m.member_did = :reader_did AND m.left_at IS NULL
     ORDER BY m.convo_id
     LIMIT 1
)
SELECT own.cid, own.object_hash FROM own
 UNION ALL
SELECT shared.cid, shared.object_hash
  FROM shared
 WHERE NOT EXISTS (SELECT FROM own);

-- name: list_blobs_by_conversation :page
-- The blobs of a conversation, newest first; no bytes.
-- tenant: convo_id
-- actor: reader_did
-- key: id
-- index: members_pkey, members_member_did_idx, blobs_convo_id_id_key
SELECT page.id, page.cid, page.uploaded_by_did, page.convo_id, page.mime_type, page.size, page.created_at
  FROM members AS r
  LEFT JOIN LATERAL (
       SELECT b.id, b.cid, b.uploaded_by_did, b.convo_id, b.mime_type, b.size, b.created_at
         FROM blobs AS b
        WHERE b.convo_id = :convo_id
          AND b.id < coalesce(:cursor_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
        ORDER BY b.id DESC
        LIMIT :limit) AS page ON true
 WHERE r.convo_id = :convo_id AND r.member_did = :reader_did AND r.left_at IS NULL
 ORDER BY page.id DESC;

-- name: delete_blob :rows
-- Drop an uploader's references to these bytes, in all conversations.
-- tenant: uploaded_by_did
-- actor: uploaded_by_did
-- index: blobs_pkey
DELETE FROM blobs AS b WHERE b.uploaded_by_did = :uploaded_by_did AND b.cid = :cid;

-- name: get_user_storage_size :value
-- Bytes of all blobs of an uploader; the same bytes in two conversations count twice.
-- tenant: did
-- actor: did
-- index: blobs_pkey
SELECT coalesce(sum(b.size), 0)::bigint AS size FROM blobs AS b WHERE b.uploaded_by_did = :did;
