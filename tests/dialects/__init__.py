"""Clients of other services, run as their users run them, against a live server."""
