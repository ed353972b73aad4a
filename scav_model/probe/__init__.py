"""Deprecated name of scav_model.experiments.probes."""
