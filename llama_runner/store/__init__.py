"""Artifacts and their records on disk: paths, publishing, digests, stamps, locks."""
