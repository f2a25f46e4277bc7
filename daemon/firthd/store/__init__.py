"""State: the SQLite database and the content-addressed files; the only room that knows SQL."""
