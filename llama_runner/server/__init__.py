"""The place that ``serving`` had in version 0.1 before its release; only documented names are kept here."""
