"""CRAN-like repositories: everything that knows their formats."""
