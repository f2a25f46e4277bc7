"""What clients and people reach over TCP: packages, indexes, pages."""
