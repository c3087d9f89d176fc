-- The vault itself: the row whose lock orders the changes of its structure.

-- name: lock_vault :exec
-- Wait for all who change this vault's structure, or write into it; make it on first use.
-- It changes the row, so that a transaction whose snapshot is older is refused and not misled.
-- tenant: user_id
-- index: vaults_pkey
INSERT INTO vaults AS v (user_id)
VALUES (:user_id)
    ON CONFLICT (user_id) DO UPDATE SET structure_version = v.structure_version + 1;
