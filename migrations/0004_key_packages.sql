-- Key packages (RFC 9420 section 10): published by a device, claimed once.

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE key_packages (
    did text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    device_id text COLLATE "C" NOT NULL DEFAULT '',
    -- squawk-ignore prefer-bigint-over-int -- 16 bits (RFC 9420 17.1), as a CHECK below says
    cipher_suite integer NOT NULL,
    key_data bytea,
    ref bytea NOT NULL,
    last_resort boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    consumed_at timestamptz,
    consumed_for_convo_id text COLLATE "C",
    CONSTRAINT key_packages_pkey PRIMARY KEY (did, id),
    CONSTRAINT key_packages_did_cipher_suite_ref_key UNIQUE (did, cipher_suite, ref),
    CONSTRAINT key_packages_cipher_suite_check CHECK (cipher_suite BETWEEN 1 AND 65535),
    CONSTRAINT key_packages_ref_check CHECK (key_data IS NULL OR ref = sha256(key_data)),
    CONSTRAINT key_packages_consumed_check CHECK ((consumed_at IS NULL) = (key_data IS NOT NULL))
);

COMMENT ON TABLE key_packages IS 'One key package each. A consumed one drops its bytes and is remembered by ref past its expiry, so that storing it again cannot revive it.
tenant: did
actor: did';
COMMENT ON COLUMN key_packages.ref IS 'SHA-256 of key_data.';
COMMENT ON COLUMN key_packages.last_resort IS 'Served when no one-time package is left, and not consumed by it (RFC 9420 16.8).';
COMMENT ON COLUMN key_packages.consumed_at IS 'When it was claimed or, for a last resort, replaced.';

-- What is available: one-time packages oldest first, then last resorts; of a DID, and of one device.
CREATE INDEX key_packages_available_idx ON key_packages (did, cipher_suite, last_resort, created_at, id) WHERE consumed_at IS NULL;
CREATE INDEX key_packages_device_idx ON key_packages (did, cipher_suite, device_id, last_resort, created_at, id) WHERE consumed_at IS NULL;

-- What delete_expired_key_packages looks for.
CREATE INDEX key_packages_expired_idx ON key_packages (expires_at) WHERE consumed_at IS NULL;
CREATE INDEX key_packages_remembered_idx ON key_packages (expires_at) WHERE consumed_at IS NOT NULL;
