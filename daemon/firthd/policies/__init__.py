"""Decides, purely, which artifacts may enter a channel: rules, verdicts, the closure of dependencies, licences."""
