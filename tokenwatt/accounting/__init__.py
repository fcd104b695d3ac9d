"""Counters, intervals, windows: the only room that computes."""
