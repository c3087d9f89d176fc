-- Items: small named records, which belong to nobody in particular.

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE items (
    id uuid NOT NULL,
    name text NOT NULL,
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT items_pkey PRIMARY KEY (id),
    CONSTRAINT items_name_check CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT items_description_check CHECK (length(description) BETWEEN 1 AND 1000)
);

COMMENT ON TABLE items IS 'Small named records.
tenant: none (they belong to nobody: the program that calls says who may read and change them)';
COMMENT ON COLUMN items.id IS 'A UUIDv7: the order of ids is that of creation.';
COMMENT ON COLUMN items.description IS 'Null where there is none; never empty.';
