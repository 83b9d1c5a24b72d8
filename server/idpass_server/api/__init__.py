"""What a call is: who makes it and whether it may, requests in, answers and errors out.

In here: everything that knows both gRPC or protobuf and the rules. May import `engine`, `store`
(its Protocol only), `rules`, and the client's generated messages. No port, no file, no signal.
"""
