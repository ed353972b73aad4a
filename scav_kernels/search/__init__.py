"""Exact nearest neighbours among sequences: lower bounds, the cascade that they form, and what it reports.

`scav_kernels.topk` is the way in; docs/engineering/retrieval.md has the proofs.
"""
