"""The commands of an account's owner: what they take, ask and show.

Each is written once, on the Python SDK, and acts on a server over HTTP or on the installation at
hand; `bursar.cli.places` knows which. None of them holds a rule: the server does.
"""
