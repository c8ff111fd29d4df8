"""What an account's owner looks at: balance, usage, and the log of who did what."""
