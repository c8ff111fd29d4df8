"""The audit log as values: who did what, and how its rows are chained."""
