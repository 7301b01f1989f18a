"""The steps of the pipeline. Heavy modules are imported inside ``run``."""
