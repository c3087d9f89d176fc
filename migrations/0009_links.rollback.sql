DROP TABLE file_links;
DROP INDEX files_name_idx;
DROP TABLE file_aliases;
DROP TABLE file_tags;
DROP TABLE frontmatter;
