"""The HTTP server in front of the gateway: from a socket to a request, and back."""
