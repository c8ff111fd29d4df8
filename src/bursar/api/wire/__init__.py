"""How the control API reads requests and writes answers, whatever they are about.

Credentials, strict bodies, strict queries, cursors, the envelope. Must not know any noun.
"""
