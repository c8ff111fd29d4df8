"""Many workers, their database and their callers, under one seed: the same seed, the same run."""
