"""Tokens from inference servers: readings of their counters, and nothing about energy."""
