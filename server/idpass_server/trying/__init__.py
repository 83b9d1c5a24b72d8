"""For trying the service out: the demo, the sandbox, development certificates.

In here: what makes up data, or keys that nobody should rely on. May import `hosting` and what is
below it. Only `cli` and `processes` may import it: nothing that serves in production does.
"""
