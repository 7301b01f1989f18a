"""The steps of the pipeline, one per file. Heavy modules are imported inside ``run``."""
