"""How the faces of the control plane read requests, prove callers and answer, whatever it is about.

Credentials, strict bodies, strict queries, cursors, the gate, the envelope. Shared by the control
API and the dialects, which import nothing of each other. Must not know any noun, nor any error's
shape.
"""
