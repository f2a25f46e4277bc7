"""Tells somebody outside what went wrong and what is well again."""
