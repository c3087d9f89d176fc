-- Users: who may log in. Names and addresses are compared by their lower case.

-- name: insert_user :one
-- Create a user.
-- tenant: none (the id is made here)
INSERT INTO users AS u (username, email, password_hash, full_name, did)
VALUES (:username, :email, :password_hash, :full_name, :did)
RETURNING u.id, u.username, u.email, u.full_name, u.is_active, u.did, u.created_at, u.updated_at, u.last_login;

-- name: get_user :maybe
-- One user.
-- tenant: user_id
-- index: users_pkey
SELECT u.id, u.username, u.email, u.full_name, u.is_active, u.did, u.created_at, u.updated_at, u.last_login
  FROM users AS u
 WHERE u.id = :user_id;

-- name: get_user_by_username :maybe
-- One user, by name.
-- tenant: none (looks a user up by a name that is unique among all)
-- index: users_username_key
SELECT u.id, u.username, u.email, u.full_name, u.is_active, u.did, u.created_at, u.updated_at, u.last_login
  FROM users AS u
 WHERE u.username_key = lower(:username::text COLLATE "C");

-- name: get_user_by_email :maybe
-- One user, by address.
-- tenant: none (looks a user up by an address that is unique among all)
-- index: users_email_key
SELECT u.id, u.username, u.email, u.full_name, u.is_active, u.did, u.created_at, u.updated_at, u.last_login
  FROM users AS u
 WHERE u.email_key = lower(:email::text COLLATE "C");

-- name: get_user_by_did :maybe
-- One user, by DID.
-- tenant: none (looks a user up by a DID that is unique among all)
-- index: users_did_key
SELECT u.id, u.username, u.email, u.full_name, u.is_active, u.did, u.created_at, u.updated_at, u.last_login
  FROM users AS u
 WHERE u.did = :did;

-- name: list_users :page
-- All users, in the order in which they were created.
-- tenant: none (for administrators)
-- key: id
-- index: users_pkey
SELECT u.id, u.username, u.email, u.full_name, u.is_active, u.did, u.created_at, u.updated_at, u.last_login
  FROM users AS u
 WHERE u.id > coalesce(:cursor_id::bigint, 0)
 ORDER BY u.id
 LIMIT :limit;

-- name: change_user :maybe
-- Change what is given of a user. A name, an address and a flag are never null: null means not given.
-- tenant: user_id
-- actor: none (the DID is one to have from now on)
-- index: users_pkey
UPDATE users AS u
   SET username = coalesce(:username::text, u.username),
       email = coalesce(:email::text, u.email),
       is_active = coalesce(:is_active::boolean, u.is_active),
       password_hash = CASE WHEN :password_hash_given::boolean THEN :password_hash::text ELSE u.password_hash END,
       full_name = CASE WHEN :full_name_given::boolean THEN :full_name::text ELSE u.full_name END,
       did = CASE WHEN :did_given::boolean THEN :did::text ELSE u.did END,
       updated_at = statement_timestamp()
 WHERE u.id = :user_id
RETURNING u.id, u.username, u.email, u.full_name, u.is_active, u.did, u.created_at, u.updated_at, u.last_login;

-- name: deactivate_user :rows
-- Nobody logs in as this user any more; what is stored stays.
-- tenant: user_id
-- index: users_pkey
UPDATE users AS u
   SET is_active = false, updated_at = statement_timestamp()
 WHERE u.id = :user_id AND u.is_active;

-- name: delete_user :rows
-- Delete a user with all that hangs on it (ON DELETE CASCADE). Of each collection that goes, the log says so.
-- tenant: user_id
-- index: users_pkey, collections_owner_id_idx, collections_owner_id_name_key
WITH logged AS (
    INSERT INTO audit_log (collection_id, owner_id, user_id, action, details)
    SELECT c.id, c.owner_id, c.owner_id, 'delete_collection', jsonb_build_object('name', c.name, 'with', 'delete_user')
      FROM collections AS c
     WHERE c.owner_id = :user_id
)
DELETE FROM users AS u WHERE u.id = :user_id;

-- name: find_credentials :maybe
-- A user with the hash of the password; for authenticate_user alone.
-- tenant: none (a login: the name is all there is to go by)
-- index: users_username_key
SELECT u.id, u.username, u.email, u.full_name, u.is_active, u.did, u.created_at, u.updated_at, u.last_login, u.password_hash
  FROM users AS u
 WHERE u.username_key = lower(:username::text COLLATE "C");

-- name: replace_password_hash :rows
-- The same password, hashed with parameters of today; unless it was changed meanwhile.
-- tenant: user_id
-- index: users_pkey
UPDATE users AS u
   SET password_hash = :new_hash
 WHERE u.id = :user_id AND u.password_hash = :old_hash;

-- name: record_login :rows
-- Somebody has logged in as this user.
-- tenant: user_id
-- index: users_pkey
UPDATE users AS u
   SET last_login = statement_timestamp()
 WHERE u.id = :user_id;
