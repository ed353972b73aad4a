"""Experiments on trained models that leave retrieval: classification, fingerprints, synchronization.

Each takes the checkpoints that are named, or trains models itself, with and without the temporal tasks.
"""
