"""Clients of other services' shapes, against a Bursar server.

Owns their names. They stand on the SDK alone: what they send and read is Bursar's own API or one of
its dialects.
"""
