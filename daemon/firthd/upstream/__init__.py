"""The sources: how they are asked over HTTP and read from folders. Only this package opens a client session."""
