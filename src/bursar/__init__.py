"""Bursar: the account plane of an AI API.

Owns the names that a program may import from `bursar`, and the version. It must know nothing of the
server: importing it costs what a client costs, and works where only the base install is.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
