"""Benchmarks: each distance against the arithmetic limit and other libraries (`make bench`)."""
