"""What people may do and choose, purely."""
