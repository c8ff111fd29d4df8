"""Commands about customers: accounts, credit, keys and projects."""
