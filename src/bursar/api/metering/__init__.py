"""Reports of use over HTTP."""
