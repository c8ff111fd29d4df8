"""People: the users of your account, and what belongs to whoever has signed in."""
