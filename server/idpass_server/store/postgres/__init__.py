"""The store for many processes on many hosts: a PostgreSQL database.

In here: PostgreSQL's SQL, schema, sessions and notifications. May import `rules`, the Protocol in
`store`, and what the stores share; never `store.sqlite`.
"""
