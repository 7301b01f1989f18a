"""The version of this package. A module of its own, so that a low layer need not import the package's face."""

__version__ = "0.1.0"
