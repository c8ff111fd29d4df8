"""Billing: what an account owes for a stretch of time."""
