"""Processes: from options to a running server and its exit code, alone or as workers.

In here: signals, the supervisor, the order in which parts start and stop. May import `trying`,
`hosting`, `gateway` and what is below them. Prints nothing: that is for `cli`.
"""
