"""Limits over HTTP: allowances, plans, the log of refusals, and explanations."""
