"""Registers, stack and shared memory of the CUDA kernels as they are compiled into `scav_kernels._cuda`.

`python -m tests.cuda.resources` prints them; `--write` makes them the table that test_resources.py holds them to.
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

import triton

TABLE = Path(__file__).with_name("resources.json")
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

Usage = dict[str, int]


def binary() -> str:
    # Not every build has one.
    from scav_kernels import _cuda

    return _cuda.__file__


def measured() -> dict[str, dict[str, Usage]]:
    """{"sm_90": {kernel: {"registers": …, "stack": … bytes, "shared": … bytes}}}"""
    command = [CUOBJDUMP, "--dump-resource-usage", binary()]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, Usage]] = {}
    architecture = ""
    for line in text.splitlines():
        if of := re.match(r"arch = (\w+)", line):
            architecture = of[1]
        elif function := re.match(r" Function (\S+):", line):
            name = function[1]
        elif usage := re.match(r"  REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            registers, stack, shared = map(int, usage.groups())
            figures = {"registers": registers, "stack": stack, "shared": shared}
            found.setdefault(architecture, {})[readable(name)] = figures
    return {arch: dict(sorted(found[arch].items())) for arch in sorted(found)}


def with_tensor_cores() -> dict[str, set[str]]:
    """{"sm_90": kernels with tensor-core instructions}"""
    command = [CUOBJDUMP, "-sass", binary()]
    found: dict[str, set[str]] = {}
    architecture = symbol = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dump:
        assert dump.stdout is not None
        for line in dump.stdout:
            if of := re.match(r"\s*(?:arch = |code for )(sm_\w+)", line):
                architecture = of[1]
            elif function := re.match(r"\s*Function : (\S+)", line):
                symbol = function[1]
            elif "HMMA" in line and symbol:
                found.setdefault(architecture, set()).add(readable(symbol))
                symbol = ""
    return found


def readable(symbol: str) -> str:
    """sweep_lanes<16, float, DtwValues<float> >"""
    name = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=True).stdout
    name = re.sub(r"scav::device::|\(anonymous namespace\)::|^void ", "", name)
    # An enumerator as a template's argument is a cast.
    return re.sub(r"\(\w+\)(\d)", r"\1", name).split("(")[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    text = json.dumps(measured(), indent=1) + "\n"
    if parser.parse_args().write:
        TABLE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
