"""Controlled experiments on a trained model, at test time and without training: what recall hangs on, and costs.

`temporal` disturbs the time of one side of the test clips, more and more; `ablation` shortens and coarsens both sides
for every distance. Nothing here imports torch before an experiment is asked for.
"""
