"""HTTP/1.1 as a client speaks it: one connection, one exchange at a time, strictly framed."""
