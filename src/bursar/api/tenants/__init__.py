"""Tenants over HTTP: what the operator does beside an account's own people."""
