"""Measurements of a server under load, their history, and the search for the fastest options."""
