"""Single sign-on: people whom another service knows, and what its groups make of them here."""
