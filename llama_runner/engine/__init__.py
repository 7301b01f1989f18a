"""Plans and executes a graph of steps: observes the disk, runs the steps' programs, publishes their artifacts."""
