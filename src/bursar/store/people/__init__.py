"""People in the store: memberships, sessions, factors, letters and tries."""
