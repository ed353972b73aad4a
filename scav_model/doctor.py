"""Check an installation: versions, the kernels, the packages of the extras, encoders, and the result of every op.

Nothing outside Python's library is imported before the check that needs it, so that a broken installation can be
checked too. `python -m scav_model.doctor` works without the extra `model`.
"""

from __future__ import annotations

import json
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, Literal

from scav_model.extras import EXTRAS, explain

State = Literal["ok", "missing", "warning", "problem"]
# Largest relative error of an op on float32 inputs, against the float64 reference.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: of what was checked.
        state: "ok"; "missing": an optional part is not installed; "warning": something to look at; "problem": something
            does not work.
        found: what is there.
        advice: what to do; empty if nothing.
    """

    name: str
    state: State
    found: str
    advice: str = ""

    def __str__(self) -> str:
        mark = "" if self.state == "ok" else f"{self.state}: "
        return f"{self.name:<12} {mark}{self.found}" + (f"; {self.advice}" if self.advice else "")


def examine(visual: str | None = None, audio: str | None = None) -> Iterator[Finding]:
    """Yield the findings, one after the other.

    Args:
        visual, audio: front ends to load, as `scav extract` takes them; None loads none.
    """
    yield Finding("python", "ok", f"{platform.python_version()}, {platform.platform()}")
    yield _checked("torch", _torch, "install torch 2.11 or newer, https://pytorch.org/get-started")
    kernels = _checked("kernels", _kernels, "build the kernels anew for this torch: pip install --no-build-isolation .")
    yield kernels
    yield _checked("GPU", _gpu, "install a CUDA toolkit of torch's version and build anew with SCAV_BUILD_CUDA=1")
    if kernels.state == "ok":
        yield from _ops()
    distributions = metadata.packages_distributions()
    for extra in dict.fromkeys(EXTRAS.values()):
        yield _extra(extra, distributions)
    for package in ("torchaudio", "torchvision"):
        if find_spec(package) is not None:
            yield _checked(package, partial(_load, package), f"install the build of {package} for this torch")
    for side, spec in (("visual", visual), ("audio", audio)):
        if spec is not None:
            yield _checked(side, partial(_encoder, side, spec), "see docs/extraction.md")


def _checked(name: str, check: Callable[[], str], advice: str) -> Finding:
    """Return what a check returns; a problem with that advice if it raises an error."""
    try:
        return Finding(name, "ok", check())
    except Exception as error:
        reason = explain(error, "it") if isinstance(error, ImportError) else error
        return Finding(name, "problem", " ".join(f"{type(error).__name__}: {reason}".split()), advice)


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _kernels() -> str:
    import scav_kernels

    built: dict[str, Any] = scav_kernels.build_info()
    cuda = built["cuda_version"]
    kernels = f"CUDA {cuda} for {built['cuda_architectures']}" if cuda else "no CUDA kernels"
    return (
        f"{scav_kernels.__version__}, {built['simd_level']} of {', '.join(built['simd_levels'])}; products by "
        f"{built['matmul']}, of bfloat16 by {built['bfloat16_matmul']}; {kernels}; built with torch "
        f"{built['torch_version']} and {built['compiler']}"
    )


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none that torch can use; everything runs on the CPU"
    import scav_kernels

    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    if scav_kernels.build_info()["cuda_version"] is None:
        raise RuntimeError(f"{names}, but the kernels were built without CUDA")
    return names


def _ops() -> Iterator[Finding]:
    """Compare each distance, and its gradients, with the reference on ragged sequences; on a GPU too."""
    import torch

    from scav_kernels import reference
    from scav_kernels.ops.registry import METRICS

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        wrong, missing = [], []
        for metric_name, metric in METRICS.items():
            try:
                # Sinkhorn need not converge to agree.
                with warnings.catch_warnings(action="ignore"):
                    error = _error(metric.all_pairs, getattr(reference, metric_name), device)
            except NotImplementedError:
                missing.append(metric_name)
                continue
            except Exception as failure:
                wrong.append(" ".join(f"{metric_name} fails ({type(failure).__name__}: {failure})".split()))
                continue
            if not error <= TOLERANCE:
                wrong.append(f"{metric_name} is wrong (relative error {error:.1e})")
        name = f"ops, {device}"
        if wrong:
            yield Finding(name, "problem", ", ".join(wrong), "report this with the output of scav doctor --json")
        else:
            right = f"{len(METRICS) - len(missing)} distances and their gradients agree with the reference"
            yield Finding(name, "ok", right + f"; no kernels yet: {', '.join(missing)}" * bool(missing))


def _error(distance: Callable[..., Any], reference: Callable[..., Any], device: str) -> float:
    """Return the largest relative error of distances and gradients on small ragged sequences."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 17, 5, generator=generator), torch.randn(4, 23, 5, generator=generator)
    x_lengths, y_lengths = torch.tensor([17, 1, 9]), torch.tensor([23, 8, 2, 16])
    weights = torch.rand(3, 4, generator=generator)
    results = []
    for compute, to in ((distance, torch.float32), (reference, torch.float64)):
        place = device if compute is distance else "cpu"
        sides = [side.clone().to(place, to).requires_grad_() for side in (x, y)]
        distances = compute(*sides, x_lengths.to(place), y_lengths.to(place))
        gradients = torch.autograd.grad(distances, sides, weights.to(distances))
        results.append([result.detach().cpu().double() for result in (distances, *gradients)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True))


def _extra(extra: str, distributions: Mapping[str, list[str]]) -> Finding:
    """Check the packages of an extra; `distributions` are those that provide each importable package."""
    packages = [package for package, of in EXTRAS.items() if of == extra]
    missing = [package for package in packages if find_spec(package) is None]
    name = f"[{extra}]"
    if missing:
        return Finding(name, "missing", ", ".join(missing), f"pip install 'scav-kernels[{extra}]'")
    versions = (f"{package} {metadata.version(distributions.get(package, [package])[0])}" for package in packages)
    return Finding(name, "ok", ", ".join(versions))


def _load(package: str) -> str:
    """Import a package whose libraries fit one build of torch alone."""
    import_module(package)
    return "fits this torch"


def _encoder(side: str, spec: str) -> str:
    from scav_model.encoders import audio_encoder, visual_encoder

    made: Any = visual_encoder(spec) if side == "visual" else audio_encoder(spec)
    return f"{spec}, {made.dim} features a step"


def report(visual: str | None = None, audio: str | None = None, as_json: bool = False) -> int:
    """Print the findings; return how many are problems."""
    findings = []
    for finding in examine(visual, audio):
        findings.append(finding)
        if not as_json:
            print(finding, flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    return sum(finding.state == "problem" for finding in findings)


if __name__ == "__main__":
    sys.exit(min(1, report()))
