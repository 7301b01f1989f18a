"""Access to the operating system: files, processes, hardware, network. One module for each kind of access.

Imports only ``core``; independent of models, steps and servers.
"""
