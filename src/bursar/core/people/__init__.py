"""People, purely: what a role may do, which address is whose, which password may be chosen."""
