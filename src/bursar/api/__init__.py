"""The control API: REST for accounts, their keys, limits, money and usage, and for operators.

One file a noun, `routes` says who may call what, `errors` is the one table from a refusal to its
status, `wire` is how requests are read and answered. The data plane never passes through here.
"""
