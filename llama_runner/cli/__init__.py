"""The command line: parse, call ``api``, render. No logic."""
