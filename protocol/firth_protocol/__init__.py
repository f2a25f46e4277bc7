"""The contract between firthd and its clients: nouns, methods, events, errors, and a client."""

API = 1
"""The integer version of the contract; within it fields are only added, and are optional."""
