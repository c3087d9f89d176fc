-- The vault: each user's folders and files, and every version of each file.
-- depends: 0005_users 0006_objects

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE vaults (
    user_id bigint NOT NULL,
    structure_version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT vaults_pkey PRIMARY KEY (user_id),
    CONSTRAINT vaults_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
) WITH (fillfactor = 50);

COMMENT ON TABLE vaults IS 'One row a user: the lock that orders changes of structure (create, move, copy, delete, restore, purge) and holds writes of content off meanwhile. Made on first use.
tenant: user_id';
COMMENT ON COLUMN vaults.structure_version IS 'Counts what took the lock. Taking it changes the row, so that a transaction with an older snapshot (repeatable read) is refused.';

CREATE TABLE folders (
    user_id bigint NOT NULL,
    id uuid NOT NULL,
    parent_id uuid,
    path text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    deletion_id uuid,
    CONSTRAINT folders_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT folders_user_id_fkey FOREIGN KEY (user_id) REFERENCES vaults (user_id) ON DELETE CASCADE,
    CONSTRAINT folders_parent_fkey FOREIGN KEY (user_id, parent_id) REFERENCES folders (user_id, id),
    CONSTRAINT folders_path_check CHECK (
        starts_with(path, '/')
        AND path || '/' NOT LIKE ALL (ARRAY['%//%', '%/./%', '%/../%'])
        AND path !~ '[\u0001-\u001f\u007f-\u009f]'
        AND path IS NFC NORMALIZED
        AND octet_length(path) <= 1024
    ),
    CONSTRAINT folders_deleted_check CHECK (
        (deleted_at IS NULL) = (deletion_id IS NULL)
        AND (deleted_at IS NULL OR parent_id IS NULL)
    )
);

COMMENT ON TABLE folders IS 'Folders by their whole path; the root is no row, but the empty prefix.
tenant: user_id';
COMMENT ON COLUMN folders.parent_id IS 'The folder that this one is in; null in the root, and while deleted.';
COMMENT ON COLUMN folders.deletion_id IS 'Which deletion: what it took together comes back together.';

CREATE UNIQUE INDEX folders_path_key ON folders (user_id, path) WHERE deleted_at IS NULL;

-- What is in a folder, and in the root, by path.
CREATE INDEX folders_parent_idx ON folders (user_id, parent_id, path) WHERE parent_id IS NOT NULL;
CREATE INDEX folders_root_idx ON folders (user_id, path) WHERE parent_id IS NULL AND deleted_at IS NULL;

-- What was deleted: at a path, the latest last; and what is purged next, the deepest first.
CREATE INDEX folders_deleted_path_idx ON folders (user_id, path, deleted_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX folders_deleted_idx ON folders (user_id, deleted_at, path DESC, id) WHERE deleted_at IS NOT NULL;

CREATE TABLE files (
    user_id bigint NOT NULL,
    id uuid NOT NULL,
    folder_id uuid,
    path text COLLATE "C" NOT NULL,
    extension text COLLATE "C" NOT NULL GENERATED ALWAYS AS (lower(coalesce(substring(path FROM '\.([^./]+)$'), ''))) STORED,
    version bigint NOT NULL DEFAULT 1,
    object_hash text COLLATE "C" NOT NULL,
    object_state text COLLATE "C" NOT NULL DEFAULT 'stored',
    size bigint NOT NULL,
    content_type text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    deletion_id uuid,
    CONSTRAINT files_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT files_user_id_fkey FOREIGN KEY (user_id) REFERENCES vaults (user_id) ON DELETE CASCADE,
    CONSTRAINT files_folder_fkey FOREIGN KEY (user_id, folder_id) REFERENCES folders (user_id, id),
    CONSTRAINT files_object_fkey FOREIGN KEY (object_hash, object_state) REFERENCES objects (hash, state),
    CONSTRAINT files_object_state_check CHECK (object_state = 'stored'),
    CONSTRAINT files_path_check CHECK (
        starts_with(path, '/')
        AND path || '/' NOT LIKE ALL (ARRAY['%//%', '%/./%', '%/../%'])
        AND path !~ '[\u0001-\u001f\u007f-\u009f]'
        AND path IS NFC NORMALIZED
        AND octet_length(path) <= 1024
    ),
    CONSTRAINT files_numbers_check CHECK (size >= 0 AND version >= 1),
    CONSTRAINT files_deleted_check CHECK (
        (deleted_at IS NULL) = (deletion_id IS NULL)
        AND (deleted_at IS NULL OR folder_id IS NULL)
    )
);

COMMENT ON TABLE files IS 'Files by their whole path, with the newest version''s content.
tenant: user_id';
COMMENT ON COLUMN files.folder_id IS 'The folder that it is in; null in the root, and while deleted.';
COMMENT ON COLUMN files.extension IS 'What follows the last dot of the name, in lower case (ASCII); empty where there is none.';
COMMENT ON COLUMN files.version IS 'Number of the newest version: 1, 2, 3, ...';
COMMENT ON COLUMN files.updated_at IS 'When the content was last written; a move does not change it.';
COMMENT ON COLUMN files.deletion_id IS 'Which deletion: what it took together comes back together.';

CREATE UNIQUE INDEX files_path_key ON files (user_id, path) WHERE deleted_at IS NULL;

-- What is in a folder, and in the root, by path; and of one kind, wherever it is.
CREATE INDEX files_folder_idx ON files (user_id, folder_id, path) WHERE folder_id IS NOT NULL;
CREATE INDEX files_root_idx ON files (user_id, path) WHERE folder_id IS NULL AND deleted_at IS NULL;
CREATE INDEX files_extension_idx ON files (user_id, extension, path) WHERE deleted_at IS NULL;

-- What was deleted: at a path, the latest last; and what is purged next.
CREATE INDEX files_deleted_path_idx ON files (user_id, path, deleted_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX files_deleted_idx ON files (user_id, deleted_at, id) WHERE deleted_at IS NOT NULL;

-- Who refers to an object: for its collection.
CREATE INDEX files_object_hash_idx ON files (object_hash);

CREATE TABLE file_versions (
    user_id bigint NOT NULL,
    file_id uuid NOT NULL,
    version bigint NOT NULL,
    object_hash text COLLATE "C" NOT NULL,
    object_state text COLLATE "C" NOT NULL DEFAULT 'stored',
    size bigint NOT NULL,
    content_type text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT file_versions_pkey PRIMARY KEY (user_id, file_id, version),
    CONSTRAINT file_versions_file_fkey FOREIGN KEY (user_id, file_id) REFERENCES files (user_id, id) ON DELETE CASCADE,
    CONSTRAINT file_versions_object_fkey FOREIGN KEY (object_hash, object_state) REFERENCES objects (hash, state),
    CONSTRAINT file_versions_object_state_check CHECK (object_state = 'stored'),
    CONSTRAINT file_versions_numbers_check CHECK (size >= 0 AND version >= 1)
);

COMMENT ON TABLE file_versions IS 'Everything that was ever written to a file, the newest too; gone only when the file is purged.
tenant: user_id';
COMMENT ON COLUMN file_versions.version IS '1, 2, 3, ... without gaps, in the order of the writes.';

CREATE INDEX file_versions_object_hash_idx ON file_versions (object_hash);
