DROP TABLE audit_log;
DROP TABLE collection_permissions;
DROP TABLE collections;
