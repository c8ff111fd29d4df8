"""Clients of other services' shapes."""
