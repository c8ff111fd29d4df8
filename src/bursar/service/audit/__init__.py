"""The audit log of an account: noting changes, reading them, and proving that none is missing."""
