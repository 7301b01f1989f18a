"""Running servers: launching, supervision, the registry, access, system services.

What only one engine has is in a package of its own: ``llama_server``. A second engine goes beside it.
"""
