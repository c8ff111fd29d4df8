"""Limits in the store: the allowances that people set, the plans behind them, and refusals."""
