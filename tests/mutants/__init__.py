"""Kernels made wrong on purpose, each of which the tests of the ops must catch: `python -m tests.mutants`."""
