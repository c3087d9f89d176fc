DROP TABLE chunks;
DROP TABLE documents;
DROP EXTENSION btree_gin;
