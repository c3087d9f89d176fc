"""The PostgreSQL data layer of an end-to-end-encrypted workspace server."""
