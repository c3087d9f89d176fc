-- What files say of themselves (frontmatter), and the links between them.
-- depends: 0008_vault

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE frontmatter (
    user_id bigint NOT NULL,
    file_id uuid NOT NULL,
    publish boolean NOT NULL DEFAULT false,
    permalink text COLLATE "C",
    title text,
    other jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT frontmatter_pkey PRIMARY KEY (user_id, file_id),
    CONSTRAINT frontmatter_file_fkey FOREIGN KEY (user_id, file_id) REFERENCES files (user_id, id) ON DELETE CASCADE,
    CONSTRAINT frontmatter_other_check CHECK (jsonb_typeof(other) = 'object')
);

COMMENT ON TABLE frontmatter IS 'What the head of a file says of it; its tags and aliases have tables of their own.
tenant: user_id';
COMMENT ON COLUMN frontmatter.publish IS 'The author''s wish; what is published stands in published_pages.';
COMMENT ON COLUMN frontmatter.other IS 'Every other key of the head, as it was written.';

CREATE TABLE file_tags (
    user_id bigint NOT NULL,
    file_id uuid NOT NULL,
    tag text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT file_tags_pkey PRIMARY KEY (user_id, file_id, tag),
    CONSTRAINT file_tags_file_fkey FOREIGN KEY (user_id, file_id) REFERENCES frontmatter (user_id, file_id) ON DELETE CASCADE,
    CONSTRAINT file_tags_tag_check CHECK (octet_length(tag) BETWEEN 1 AND 1024)
);

COMMENT ON TABLE file_tags IS 'The tags of each file, without the leading #.
tenant: user_id';
COMMENT ON COLUMN file_tags.position IS 'Its place among the tags of the file: 1, 2, ...';

CREATE INDEX file_tags_tag_idx ON file_tags (user_id, tag, file_id);

CREATE TABLE file_aliases (
    user_id bigint NOT NULL,
    file_id uuid NOT NULL,
    alias text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT file_aliases_pkey PRIMARY KEY (user_id, file_id, alias),
    CONSTRAINT file_aliases_file_fkey FOREIGN KEY (user_id, file_id) REFERENCES frontmatter (user_id, file_id) ON DELETE CASCADE,
    CONSTRAINT file_aliases_alias_check CHECK (octet_length(alias) BETWEEN 1 AND 1024)
);

COMMENT ON TABLE file_aliases IS 'Other names of a file, by which links find it.
tenant: user_id';
COMMENT ON COLUMN file_aliases.position IS 'Its place among the aliases of the file: 1, 2, ...';

CREATE INDEX file_aliases_alias_idx ON file_aliases (user_id, alias, file_id);

-- Files by their name; of those with one name, the shortest path first, then the first in order.
-- squawk-ignore require-concurrent-index-creation -- files is as new as this
CREATE INDEX files_name_idx ON files (user_id, split_part(path, '/', -1), length(path), path) WHERE deleted_at IS NULL;

CREATE TABLE file_links (
    user_id bigint NOT NULL,
    source_file_id uuid NOT NULL,
    position bigint NOT NULL,
    target_name text COLLATE "C" NOT NULL,
    target_file_id uuid,
    embed boolean NOT NULL,
    fragment text,
    CONSTRAINT file_links_pkey PRIMARY KEY (user_id, source_file_id, position),
    CONSTRAINT file_links_source_fkey FOREIGN KEY (user_id, source_file_id) REFERENCES files (user_id, id) ON DELETE CASCADE,
    CONSTRAINT file_links_target_fkey FOREIGN KEY (user_id, target_file_id) REFERENCES files (user_id, id) ON DELETE SET NULL (target_file_id),
    CONSTRAINT file_links_position_check CHECK (position >= 1),
    CONSTRAINT file_links_target_name_check CHECK (octet_length(target_name) BETWEEN 1 AND 1024)
);

COMMENT ON TABLE file_links IS 'The links in each file, in their order, and what each leads to.
tenant: user_id';
COMMENT ON COLUMN file_links.position IS 'Its place among the links of its file: 1, 2, ...';
COMMENT ON COLUMN file_links.target_name IS 'What the link names, in NFC, without a leading slash: a file''s name or path, with or without .md, or an alias.';
COMMENT ON COLUMN file_links.target_file_id IS 'The live file that the name stands for; null where there is none.';
COMMENT ON COLUMN file_links.embed IS 'The target is shown inside the source, and not only linked to.';
COMMENT ON COLUMN file_links.fragment IS 'The heading or block in the target.';

-- Links by what they name, to be resolved again; by what they lead to; and those that lead nowhere.
CREATE INDEX file_links_name_idx ON file_links (user_id, target_name, source_file_id, position);
CREATE INDEX file_links_target_idx ON file_links (user_id, target_file_id, source_file_id, position) WHERE target_file_id IS NOT NULL;
CREATE INDEX file_links_unresolved_idx ON file_links (user_id, target_name, source_file_id, position) WHERE target_file_id IS NULL;
