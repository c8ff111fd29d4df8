"""The use cases of the control plane: one function each, transaction first, keywords after it.

Nothing here knows HTTP, draws random numbers or looks at a clock: randomness is a port passed in,
the time is the transaction's. Errors are those of `core.errors`. Another account's things are
unknown things: every function names the account and finds nothing outside it.
"""
