"""Recall against time and pairs compared."""
