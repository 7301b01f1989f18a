"""Artifacts and their records on disk: where everything is, publishing, hashing, locks."""
