"""The forms that create and edit."""
