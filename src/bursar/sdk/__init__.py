"""The Python SDK: what programs use to talk to a Bursar server.

Owns the way from a method call to an answer as a typed value. Stands alone: it knows the HTTP API
and nothing of the server's code. Each call is described once, under `resources`, and driven by two
thin faces, one that blocks and one that is awaited.

A new resource is one file in `resources` and one line in each client.
"""
