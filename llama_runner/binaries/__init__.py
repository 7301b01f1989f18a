"""llama.cpp: which one, the tools that build it, and how."""
