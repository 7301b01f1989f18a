"""Files that run declared models elsewhere: a Dockerfile, Compose, Quadlet, Kubernetes, systemd. Starts nothing."""
