"""`make bench`: what a call costs, beside the same work on asyncpg, psycopg, SQLAlchemy and pgbench."""
