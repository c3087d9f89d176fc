-- Users, which vault and corpus share.

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY,
    username text COLLATE "C" NOT NULL,
    username_key text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(username)) STORED,
    email text COLLATE "C" NOT NULL,
    email_key text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(email)) STORED,
    password_hash text,
    full_name text,
    is_active boolean NOT NULL DEFAULT true,
    did text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_login timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_username_key UNIQUE (username_key),
    CONSTRAINT users_email_key UNIQUE (email_key),
    CONSTRAINT users_did_key UNIQUE (did),
    CONSTRAINT users_username_check CHECK (username ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    CONSTRAINT users_email_check CHECK (email ~ '^[!-~]+@[!-~]+$' AND length(email) <= 254)
);

COMMENT ON TABLE users IS 'Who may log in. Names and addresses are ASCII, so that lower() says all there is to say of case.
tenant: id';
COMMENT ON COLUMN users.password_hash IS 'Argon2id in its own encoding. Null: nobody logs in by a password here.';
