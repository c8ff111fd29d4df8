"""The audit log: what gets into it, how it is read, and that nobody changes it unnoticed."""
