"""Mirrors: standing orders to copy a source into a channel, and the runs that carry them out."""
