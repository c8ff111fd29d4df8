"""Where a command of an account's owner acts: on a server, or on the installation at hand.

Owns the one rule of which it is (`choice`), how either is reached (`owner`, `host`), and what is
kept of a sign-in (`profiles`, `sign_in`). Commands know neither: they have a client of the SDK.
"""
