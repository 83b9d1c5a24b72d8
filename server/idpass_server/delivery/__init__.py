"""Webhooks: events told to callers' URLs, signed, retried, in order for each pass, none lost.

In here: everything between the events table and a receiver. `Webhooks` is what the API calls;
`Delivering` is the part that runs beside it. May import `engine`, `store` and `rules`; how an event
looks in JSON is passed in. Nothing that answers callers waits for anything here.
"""
