"""Channels: what they hold, what they publish, and what was published before."""
