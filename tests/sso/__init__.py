"""Sign-in services that nobody here wrote, and a server that is set up with one."""
