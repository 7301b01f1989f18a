"""llama.cpp's programs: source trees, builds, releases, installed builds, capabilities."""
