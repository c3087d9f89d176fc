-- btree_gin stays: it may have been here before, and others may use it.
DROP TABLE chunks;
DROP TABLE documents;
