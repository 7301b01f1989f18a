"""Values and decisions without effects. Imports the standard library only and does no I/O."""
