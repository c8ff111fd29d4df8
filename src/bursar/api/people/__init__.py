"""People on the wire: signing in, their own things, and the users of an account."""
