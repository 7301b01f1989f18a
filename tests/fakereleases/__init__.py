"""A listing of releases on loopback, in the shape of GitHub's API, and the files that it lists."""
