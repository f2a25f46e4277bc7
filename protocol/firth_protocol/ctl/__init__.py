"""firthctl: the method table as a command line."""
