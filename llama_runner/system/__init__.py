"""Access to the operating system: files, processes, hardware. One module for each kind of access.

Nothing here knows of models, steps or servers; only ``core`` is imported.
"""
