"""What the outside world does for us, each behind a small port with a twin for tests."""
