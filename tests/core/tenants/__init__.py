"""What may be agreed with an account, purely."""
