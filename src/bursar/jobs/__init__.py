"""Periodic work: what no request can wait for and nobody should have to remember."""
