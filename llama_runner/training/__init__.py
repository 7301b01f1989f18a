"""Training of LoRA adapters: data, options, the program that trains, versions of adapters."""
