"""Lay this tree out as the Hugging Face kernel-builder expects a kernel, by links: hub.py FOLDER.

build.toml      the sources and flags of setup.py
flake.nix       what `nix build` runs
csrc            link
torch-ext/scav_kernels   link to the Python package
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import setup as build  # noqa: E402

PACKAGE = "scav_kernels"
FLAKE = """\
{
  description = "scav-kernels";
  inputs.kernel-builder.url = "github:huggingface/kernels";
  outputs = { self, kernel-builder }:
    kernel-builder.lib.genKernelFlakeOutputs { inherit self; path = ./.; };
}
"""


def table(title: str, **values: object) -> str:
    """Return a TOML table of strings, numbers and lists of them."""
    lines = [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join((f"[{title}]", *lines, ""))


def headers(*folders: str) -> list[str]:
    """The builder copies what it is told of alone, headers too."""
    found = [
        path for folder in folders for kind in ("*.h", "*.inl", "*.cuh") for path in (build.CSRC / folder).glob(kind)
    ]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def build_toml() -> str:
    binding = "csrc/module.cpp"
    # The builder names torch's headers and optimization itself.
    own = [flag for flag in build.compiler_flags()["cxx"] if not flag.startswith(("-isystem", "-W"))]
    cpu = [source for source in build.cpu_extension().sources if source != binding]
    cuda = [*build.sources_in("cuda", "*.cpp", "*.cu"), *build.SHARED]
    architectures = [name.removesuffix("+PTX") for name in build.ARCHITECTURES.split()]
    return "\n".join(
        (
            table("general", name="scav-kernels", version=1, license="Apache-2.0", backends=["cpu", "cuda"]),
            table("torch", minver="2.11", include=["csrc"], src=[binding]),
            table(
                f"kernel.{PACKAGE}_cpu",
                backend="cpu",
                depends=["torch"],
                include=["csrc"],
                cxx_flags=own,
                src=cpu + headers("cpu", "shared"),
            ),
            table(
                f"kernel.{PACKAGE}_cuda",
                backend="cuda",
                depends=["torch"],
                include=["csrc"],
                cuda_capabilities=architectures,
                cxx_flags=[*own, "-DUSE_CUDA"],
                cuda_flags=[flag for flag in build.compiler_flags()["nvcc"] if not flag.startswith("-W")],
                src=cuda + headers("cuda", "shared"),
            ),
        )
    )


def lay_out(folder: Path) -> None:
    (folder / "torch-ext").mkdir(parents=True)
    (folder / "csrc").symlink_to(build.CSRC)
    (folder / "torch-ext" / PACKAGE).symlink_to(ROOT / PACKAGE)
    (folder / "build.toml").write_text(build_toml(), encoding="utf-8")
    (folder / "flake.nix").write_text(FLAKE, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    lay_out(Path(sys.argv[1]))
