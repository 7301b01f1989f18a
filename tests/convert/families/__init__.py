"""Tiny checkpoints of every family, and the variations of which the output is compared with the official script's."""
