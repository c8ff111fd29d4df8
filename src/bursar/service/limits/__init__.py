"""Limits: what is allowed, by whom it was set, what was refused, and why a request would be."""
