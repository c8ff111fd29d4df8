"""People: who they are in an account, and how they prove it."""
