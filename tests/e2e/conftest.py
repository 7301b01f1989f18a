"""A hub on loopback for every test that asks for one."""

from tests.fakehub.fixtures import hub

__all__ = ["hub"]
