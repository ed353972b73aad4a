"""Triton kernels, imported at the first CUDA call: `import scav_kernels` needs no Triton."""
