"""Pure values and decisions: standard library only; no clock, randomness, environment or await."""
