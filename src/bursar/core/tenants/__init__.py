"""Tenants: what can be agreed with an account."""
