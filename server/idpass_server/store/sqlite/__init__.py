"""The store for one machine: a SQLite file, served by one process.

In here: SQLite's SQL, schema, file and locks. May import `rules`, the Protocol in `store`, and what
the stores share; never `store.postgres`.
"""
