"""Reports of use over HTTP, and what a month of it cost."""
