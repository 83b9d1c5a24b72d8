"""Calls: identity, admission, requests in, responses and errors out, watching.

In here: everything that knows both the rules and gRPC or protobuf. May import `engine`, `store`
(the Protocol only), `rules`, and the client's generated messages. No ports, files or signals.
"""
