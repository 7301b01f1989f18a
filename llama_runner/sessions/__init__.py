"""Conversations on disk: KV caches (state files), histories, their encryption. The gateway writes and reads them."""
