-- Pages that users have published.
-- depends: 0009_links

-- A lock that somebody holds is not waited for: everybody else would queue behind this.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '1min';

CREATE TABLE published_pages (
    user_id bigint NOT NULL,
    file_id uuid NOT NULL,
    permalink text COLLATE "C",
    title text,
    html text,
    published_at timestamptz,
    invalidation bigint NOT NULL DEFAULT 0,
    rendered bigint NOT NULL DEFAULT 0,
    withdrawn bigint NOT NULL DEFAULT 0,
    CONSTRAINT published_pages_pkey PRIMARY KEY (user_id, file_id),
    CONSTRAINT published_pages_permalink_key UNIQUE (user_id, permalink),
    CONSTRAINT published_pages_file_fkey FOREIGN KEY (user_id, file_id) REFERENCES files (user_id, id) ON DELETE CASCADE,
    CONSTRAINT published_pages_published_check CHECK (
        (permalink IS NULL) = (html IS NULL) AND (permalink IS NULL) = (published_at IS NULL)
    ),
    CONSTRAINT published_pages_permalink_check CHECK (
        '/' || permalink || '/' NOT LIKE ALL (ARRAY['%//%', '%/./%', '%/../%', '%/ %', '% /%'])
        AND permalink !~ '[?#%\\\u0001-\u001f\u007f-\u00a0\u00ad\u061c\u1680\u180e\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]'
        AND permalink IS NFC NORMALIZED
        AND octet_length(permalink) <= 1024
    ),
    CONSTRAINT published_pages_counters_check CHECK (
        rendered BETWEEN 0 AND invalidation AND withdrawn BETWEEN 0 AND invalidation
    )
);

COMMENT ON TABLE published_pages IS 'Files rendered for everybody to read. A row is there from the first rendering on, also while nothing is published: its counters outlive the page.
tenant: user_id';
COMMENT ON COLUMN published_pages.permalink IS 'Where it is read, below its user''s name; null while it is not published.';
COMMENT ON COLUMN published_pages.invalidation IS 'Counts what made a rendering stale: a change of the file, of what it embeds, or of where its links lead.';
COMMENT ON COLUMN published_pages.rendered IS 'What invalidation was when the rendering began that stands in html: below it, the page is stale.';
COMMENT ON COLUMN published_pages.withdrawn IS 'What invalidation became when the page was last unpublished: a rendering that began before is refused.';

CREATE INDEX published_pages_stale_idx ON published_pages (user_id, file_id) WHERE permalink IS NOT NULL AND rendered < invalidation;
