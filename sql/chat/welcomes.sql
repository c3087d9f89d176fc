-- Welcomes that wait for the devices they let in.

-- name: list_pending_welcomes :page
-- The Welcomes that a DID's devices have not acknowledged; a row a device.
-- None for who left: a removal withdraws what it sees, and this what a commit brought meanwhile.
-- tenant: recipient_did
-- actor: recipient_did
-- key: convo_id, epoch, key_package_ref
-- index: welcome_recipients_pending_idx, welcomes_pkey, members_pkey
SELECT wr.convo_id, wr.epoch, w.data, wr.key_package_ref
  FROM welcome_recipients AS wr
  JOIN welcomes AS w ON w.convo_id = wr.convo_id AND w.epoch = wr.epoch AND w.ordinal = wr.ordinal
 WHERE wr.recipient_did = :recipient_did
   AND wr.acknowledged_at IS NULL
   AND NOT EXISTS (SELECT FROM members AS m
                    WHERE m.convo_id = wr.convo_id AND m.member_did = :recipient_did AND m.left_at IS NOT NULL)
   AND (wr.convo_id, wr.epoch, wr.key_package_ref)
       > (coalesce(:cursor_convo_id::text, ''), coalesce(:cursor_epoch::bigint, 0), coalesce(:cursor_key_package_ref::bytea, ''))
 ORDER BY wr.convo_id, wr.epoch, wr.key_package_ref
 LIMIT :limit;

-- name: acknowledge_welcome :rows
-- A device has joined from its Welcome: do not show it again.
-- tenant: convo_id
-- actor: recipient_did
-- index: welcome_recipients_pending_idx
UPDATE welcome_recipients AS wr
   SET acknowledged_at = statement_timestamp()
 WHERE wr.convo_id = :convo_id
   AND wr.recipient_did = :recipient_did
   AND wr.key_package_ref = :key_package_ref
   AND wr.acknowledged_at IS NULL;
