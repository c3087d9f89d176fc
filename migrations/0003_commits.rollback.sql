DROP TABLE group_infos;
DROP TABLE welcome_recipients;
DROP TABLE welcomes;
