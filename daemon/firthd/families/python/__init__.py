"""Python indexes: everything that knows their formats."""
