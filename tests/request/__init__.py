"""Tests of what a request means: its facts, its graph, and the way from one to the other."""
