"""Experiments with models: the demo, the paper's table, and probes of one trained model."""
