"""Deprecated name of scav_model.experiments.demo."""
