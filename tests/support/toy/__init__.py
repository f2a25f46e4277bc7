"""A family of packages that exists for tests: what it takes to be one, and nothing that the rest of the house knows."""
