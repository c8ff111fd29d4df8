"""Everything that holds Bursar to its word, laid out as the packages that it holds."""
