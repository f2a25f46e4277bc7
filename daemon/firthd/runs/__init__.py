"""Runs: whatever takes time or publishes, with its queue, its steps and its log."""
