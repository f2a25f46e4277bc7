"""The daemon: the only process that owns state; it mirrors, publishes and serves."""

__version__ = "0.1.0"
