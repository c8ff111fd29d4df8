"""Tenants: what the operator does beside an account's own people."""
