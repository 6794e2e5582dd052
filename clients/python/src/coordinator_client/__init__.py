"""Locks across machines."""
