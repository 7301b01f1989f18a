"""Running servers: launching, readiness, supervision, the registry, access, system services."""
