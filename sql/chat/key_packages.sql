-- Key packages: published by a device, each claimed by one who adds it to a group.
--
-- Storing never locks a package that is there: a claim passes over a locked one, and would
-- believe it taken.

-- name: insert_key_package :maybe
-- Store a key package, or return the one stored before, spent or not; its bytes are the caller's.
-- A new last resort replaces its device's old ones. No row: stored by another at this moment.
-- tenant: did
-- index: key_packages_device_idx, key_packages_did_cipher_suite_ref_key
WITH stored AS (
    INSERT INTO key_packages AS kp (did, id, device_id, cipher_suite, key_data, ref, last_resort, created_at, expires_at)
    VALUES (:did, :id, :device_id, :cipher_suite, :key_data::bytea, sha256(:key_data), :last_resort, statement_timestamp(), :expires_at)
        ON CONFLICT (did, cipher_suite, ref) DO NOTHING
 RETURNING kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.ref, kp.last_resort, kp.created_at, kp.expires_at, kp.consumed_at
),
replaced AS (
    UPDATE key_packages AS kp
       SET consumed_at = statement_timestamp(), key_data = NULL
      FROM stored
     WHERE stored.last_resort
       AND kp.did = :did AND kp.cipher_suite = :cipher_suite AND kp.device_id = :device_id
       AND kp.last_resort AND kp.consumed_at IS NULL
)
SELECT stored.did, stored.id, stored.device_id, stored.cipher_suite, :key_data AS key_data, stored.ref, stored.last_resort, stored.created_at, stored.expires_at, stored.consumed_at
  FROM stored
 UNION ALL
SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, :key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at, kp.consumed_at
  FROM key_packages AS kp
 WHERE kp.did = :did AND kp.cipher_suite = :cipher_suite AND kp.ref = sha256(:key_data)
   AND NOT EXISTS (SELECT FROM stored);

-- name: insert_key_packages :value
-- Store a batch; how many of them are new.
-- tenant: did
-- index: key_packages_device_idx, key_packages_did_cipher_suite_ref_key
WITH stored AS (
    INSERT INTO key_packages AS kp (did, id, device_id, cipher_suite, key_data, ref, last_resort, created_at, expires_at)
    SELECT :did, given.id, given.device_id, given.cipher_suite, given.key_data, sha256(given.key_data), given.last_resort,
           statement_timestamp(), given.expires_at
      FROM unnest(:ids::uuid[], :device_ids::text[], :cipher_suites::int[], :key_datas::bytea[], :last_resorts::boolean[], :expiries::timestamptz[])
           AS given (id, device_id, cipher_suite, key_data, last_resort, expires_at)
     ORDER BY given.cipher_suite, sha256(given.key_data), given.id -- batches that overlap wait, and do not deadlock
        ON CONFLICT (did, cipher_suite, ref) DO NOTHING
 RETURNING kp.id, kp.device_id, kp.cipher_suite, kp.last_resort
),
replaced AS (
    UPDATE key_packages AS kp
       SET consumed_at = statement_timestamp(), key_data = NULL
      FROM stored
     WHERE stored.last_resort
       AND kp.did = :did AND kp.cipher_suite = stored.cipher_suite AND kp.device_id = stored.device_id
       AND kp.last_resort AND kp.consumed_at IS NULL
)
SELECT count(*) AS stored FROM stored;

-- name: get_key_package :maybe
-- The key package that would be claimed next. Claims nothing.
-- tenant: did
-- index: key_packages_available_idx
-- not-null: key_data (a package that is not consumed has its bytes: key_packages_consumed_check)
SELECT available.did, available.id, available.device_id, available.cipher_suite, available.key_data, available.ref, available.last_resort, available.created_at, available.expires_at, available.consumed_at
  FROM (
       (SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at, kp.consumed_at
          FROM key_packages AS kp
         WHERE kp.did = :did AND kp.cipher_suite = :cipher_suite
           AND NOT kp.last_resort AND kp.consumed_at IS NULL
           AND kp.expires_at > statement_timestamp()
         ORDER BY kp.created_at, kp.id
         LIMIT 1)
        UNION ALL
       (SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at, kp.consumed_at
          FROM key_packages AS kp
         WHERE kp.did = :did AND kp.cipher_suite = :cipher_suite
           AND kp.last_resort AND kp.consumed_at IS NULL
           AND kp.expires_at > statement_timestamp()
         ORDER BY kp.created_at DESC, kp.id DESC
         LIMIT 1)) AS available
 ORDER BY available.last_resort
 LIMIT 1;

-- name: claim_key_package :maybe
-- Claim the oldest one-time package that nobody else is claiming, else show the last resort.
-- tenant: did
-- index: key_packages_available_idx, key_packages_pkey
-- not-null: key_data (a package that is not consumed has its bytes: key_packages_consumed_check)
WITH candidate AS MATERIALIZED (
    SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at
      FROM key_packages AS kp
     WHERE kp.did = :did AND kp.cipher_suite = :cipher_suite
       AND NOT kp.last_resort AND kp.consumed_at IS NULL
       AND kp.expires_at > statement_timestamp()
     ORDER BY kp.created_at, kp.id
     LIMIT 1
       FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE key_packages AS kp
       SET consumed_at = statement_timestamp(), consumed_for_convo_id = :convo_id::text, key_data = NULL
      FROM candidate
     WHERE kp.did = :did AND kp.id = candidate.id
 RETURNING kp.id, kp.consumed_at
)
SELECT candidate.did, candidate.id, candidate.device_id, candidate.cipher_suite, candidate.key_data, candidate.ref, candidate.last_resort, candidate.created_at, candidate.expires_at, claimed.consumed_at
  FROM candidate
  JOIN claimed ON claimed.id = candidate.id
 UNION ALL
(SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at, kp.consumed_at
   FROM key_packages AS kp
  WHERE kp.did = :did AND kp.cipher_suite = :cipher_suite
    AND kp.last_resort AND kp.consumed_at IS NULL
    AND kp.expires_at > statement_timestamp()
    AND NOT EXISTS (SELECT FROM candidate)
  ORDER BY kp.created_at DESC, kp.id DESC
  LIMIT 1);

-- name: claim_device_key_package :maybe
-- As claim_key_package, for one device.
-- tenant: did
-- index: key_packages_device_idx, key_packages_pkey
-- not-null: key_data (a package that is not consumed has its bytes: key_packages_consumed_check)
WITH candidate AS MATERIALIZED (
    SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at
      FROM key_packages AS kp
     WHERE kp.did = :did AND kp.cipher_suite = :cipher_suite AND kp.device_id = :device_id
       AND NOT kp.last_resort AND kp.consumed_at IS NULL
       AND kp.expires_at > statement_timestamp()
     ORDER BY kp.created_at, kp.id
     LIMIT 1
       FOR UPDATE SKIP LOCKED
),
claimed AS (
    UPDATE key_packages AS kp
       SET consumed_at = statement_timestamp(), consumed_for_convo_id = :convo_id::text, key_data = NULL
      FROM candidate
     WHERE kp.did = :did AND kp.id = candidate.id
 RETURNING kp.id, kp.consumed_at
)
SELECT candidate.did, candidate.id, candidate.device_id, candidate.cipher_suite, candidate.key_data, candidate.ref, candidate.last_resort, candidate.created_at, candidate.expires_at, claimed.consumed_at
  FROM candidate
  JOIN claimed ON claimed.id = candidate.id
 UNION ALL
(SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at, kp.consumed_at
   FROM key_packages AS kp
  WHERE kp.did = :did AND kp.cipher_suite = :cipher_suite AND kp.device_id = :device_id
    AND kp.last_resort AND kp.consumed_at IS NULL
    AND kp.expires_at > statement_timestamp()
    AND NOT EXISTS (SELECT FROM candidate)
  ORDER BY kp.created_at DESC, kp.id DESC
  LIMIT 1);

-- name: claim_key_packages :many
-- As claim_key_package, once for each device of each DID.
-- The devices are found by hopping from one to the next in the index, however many packages each has.
-- The candidates pass through arrays, of which the planner expects few rows: it would else read the whole table.
-- tenant: did
-- index: key_packages_device_idx, key_packages_pkey
-- not-null: key_data (a package that is not consumed has its bytes: key_packages_consumed_check)
-- unbounded: a row for each device of the DIDs given, which are few for each
-- order: did, device_id (a device is hopped to once; a DID given twice gives the same rows twice)
WITH RECURSIVE device AS (
    SELECT given.did, first.device_id
      FROM unnest(:dids::text[]) AS given (did)
     CROSS JOIN LATERAL (
           SELECT kp.device_id
             FROM key_packages AS kp
            WHERE kp.did = given.did AND kp.cipher_suite = :cipher_suite AND kp.consumed_at IS NULL
            ORDER BY kp.device_id
            LIMIT 1) AS first
     UNION ALL
    SELECT device.did, following.device_id
      FROM device
     CROSS JOIN LATERAL (
           SELECT kp.device_id
             FROM key_packages AS kp
            WHERE kp.did = device.did AND kp.cipher_suite = :cipher_suite AND kp.consumed_at IS NULL
              AND kp.device_id > device.device_id
            ORDER BY kp.device_id
            LIMIT 1) AS following
),
candidate AS MATERIALIZED (
    SELECT oldest.did, oldest.id, oldest.device_id, oldest.cipher_suite, oldest.key_data, oldest.ref, oldest.last_resort, oldest.created_at, oldest.expires_at
      FROM device
     CROSS JOIN LATERAL (
           SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at
             FROM key_packages AS kp
            WHERE kp.did = device.did AND kp.cipher_suite = :cipher_suite AND kp.device_id = device.device_id
              AND NOT kp.last_resort AND kp.consumed_at IS NULL
              AND kp.expires_at > statement_timestamp()
            ORDER BY kp.created_at, kp.id
            LIMIT 1
              FOR UPDATE SKIP LOCKED) AS oldest
),
claimed AS (
    UPDATE key_packages AS kp
       SET consumed_at = statement_timestamp(), consumed_for_convo_id = :convo_id::text, key_data = NULL
      FROM unnest(ARRAY (SELECT candidate.did FROM candidate), ARRAY (SELECT candidate.id FROM candidate)) AS picked (did, id)
     WHERE kp.did = picked.did AND kp.id = picked.id
 RETURNING kp.did, kp.id, kp.consumed_at
),
served AS (
    SELECT candidate.did, candidate.id, candidate.device_id, candidate.cipher_suite, candidate.key_data, candidate.ref, candidate.last_resort, candidate.created_at, candidate.expires_at, claimed.consumed_at
      FROM candidate
      JOIN claimed ON claimed.did = candidate.did AND claimed.id = candidate.id
     UNION ALL
    SELECT newest.did, newest.id, newest.device_id, newest.cipher_suite, newest.key_data, newest.ref, newest.last_resort, newest.created_at, newest.expires_at, newest.consumed_at
      FROM device
     CROSS JOIN LATERAL (
           SELECT kp.did, kp.id, kp.device_id, kp.cipher_suite, kp.key_data, kp.ref, kp.last_resort, kp.created_at, kp.expires_at, kp.consumed_at
             FROM key_packages AS kp
            WHERE kp.did = device.did AND kp.cipher_suite = :cipher_suite AND kp.device_id = device.device_id
              AND kp.last_resort AND kp.consumed_at IS NULL
              AND kp.expires_at > statement_timestamp()
            ORDER BY kp.created_at DESC, kp.id DESC
            LIMIT 1) AS newest
     WHERE NOT EXISTS (SELECT FROM candidate
                        WHERE candidate.did = device.did AND candidate.device_id = device.device_id)
)
SELECT served.did, served.id, served.device_id, served.cipher_suite, served.key_data, served.ref, served.last_resort, served.created_at, served.expires_at, served.consumed_at
  FROM served
 ORDER BY served.did, served.device_id;

-- name: count_key_packages :value
-- How many one-time packages are left.
-- tenant: did
-- index: key_packages_available_idx, key_packages_did_cipher_suite_ref_key
SELECT count(*) AS available
  FROM key_packages AS kp
 WHERE kp.did = :did AND kp.cipher_suite = :cipher_suite
   AND NOT kp.last_resort AND kp.consumed_at IS NULL
   AND kp.expires_at > statement_timestamp();

-- name: delete_key_packages :value
-- Withdraw a device: its packages that nobody claimed, and the Welcomes that still wait for it.
-- tenant: did
-- index: key_packages_device_idx, key_packages_available_idx, key_packages_did_cipher_suite_ref_key, welcome_recipients_pending_idx
WITH withdrawn AS (
    DELETE FROM key_packages AS kp
     WHERE kp.did = :did AND kp.device_id = :device_id AND kp.consumed_at IS NULL
 RETURNING kp.id
),
unanswered AS (
    DELETE FROM welcome_recipients AS wr
     USING key_packages AS kp
     WHERE kp.did = :did AND kp.device_id = :device_id
       AND wr.recipient_did = :did AND wr.key_package_ref = kp.ref AND wr.acknowledged_at IS NULL
)
SELECT count(*) AS withdrawn FROM withdrawn;

-- name: delete_expired_key_packages :value
-- Remove expired packages, and forget consumed ones 180 days after their expiry.
-- Through arrays for the same reason as above.
-- tenant: none (retention, over all DIDs)
-- index: key_packages_expired_idx, key_packages_remembered_idx, key_packages_pkey
WITH expired AS MATERIALIZED (
    SELECT kp.did, kp.id
      FROM key_packages AS kp
     WHERE kp.consumed_at IS NULL AND kp.expires_at < statement_timestamp()
     ORDER BY kp.expires_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED
),
forgotten AS MATERIALIZED (
    SELECT kp.did, kp.id
      FROM key_packages AS kp
     WHERE kp.consumed_at IS NOT NULL AND kp.expires_at < statement_timestamp() - interval '180 days'
     ORDER BY kp.expires_at
     LIMIT :limit - (SELECT count(*) FROM expired)
       FOR UPDATE SKIP LOCKED
),
doomed AS MATERIALIZED (
    SELECT expired.did, expired.id FROM expired
     UNION ALL
    SELECT forgotten.did, forgotten.id FROM forgotten
),
removed AS (
    DELETE FROM key_packages AS kp
     USING unnest(ARRAY (SELECT doomed.did FROM doomed), ARRAY (SELECT doomed.id FROM doomed)) AS picked (did, id)
     WHERE kp.did = picked.did AND kp.id = picked.id
 RETURNING kp.id
)
SELECT count(*) AS removed FROM removed;
