"""Tokens that processes report of themselves, as readings."""
