"""Sessions of the gateway: saves KV caches of conversations, restores them, keeps histories. Loaded for such models."""
