"""For trying the service out: the demo, the sandbox, development certificates.

In here: what makes up data, or keys that nobody should rely on. Only `cli` and `processes` may
import it: nothing that serves in earnest does.
"""
