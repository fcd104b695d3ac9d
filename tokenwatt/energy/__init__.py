"""Joules from devices: readings of energy meters, and nothing about whom the energy belongs to."""
