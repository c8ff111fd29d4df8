"""Passwords: their slow hash.

Owns the parameters of Argon2id: 64 MiB, three passes, one lane, above what OWASP asks for. Must not
know users. Each call takes about 0.1 s of one core: callers that serve others run it in a thread.
"""

from argon2 import PasswordHasher, Type

_HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1, type=Type.ID)


def hash_password(password: str) -> str:
    """Return the password's hash with its parameters and a fresh salt in it."""
    return _HASHER.hash(password)
