"""Customers in the store: accounts, their users and their projects."""
