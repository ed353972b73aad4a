"""`import scav_kernels` loads little beyond torch."""

import subprocess
import sys

# Slow to load, or not among the core dependencies: each is imported by the first call that needs it.
LATE = ("triton", "matplotlib", "scipy", "torch._dynamo", "torch._inductor", "torchvision", "torchaudio", "pandas")
PROGRAM = f"""
import sys, time
import torch
before, start = set(sys.modules), time.process_time()
import scav_kernels
print(f"{{(time.process_time() - start) * 1000:.0f}} ms of CPU time beyond torch")
added = set(sys.modules) - before
print(*sorted(name for name in added if name.startswith({LATE!r})))
print(*sorted({{name.partition(".")[0] for name in added}}))
"""


def test_an_import_loads_nothing_but_torch_and_numpy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    figure, late, packages = done.stdout.splitlines()
    print(figure)
    assert late == ""
    assert set(packages.split()) - sys.stdlib_module_names == {"scav_kernels"}
