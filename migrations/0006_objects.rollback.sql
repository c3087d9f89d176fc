DROP TABLE objects;
DROP TABLE object_stores;
