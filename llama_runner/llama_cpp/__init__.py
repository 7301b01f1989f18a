"""llama.cpp's programs: the pinned source, building, releases, installed builds, capabilities."""
