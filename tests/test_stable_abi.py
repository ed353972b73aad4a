"""One binary runs with every torch: the extensions use nothing of torch but its stable C interface."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import scav_kernels

LIBRARIES = sorted(Path(scav_kernels.__file__).parent.glob("_*.so"))
# Names in the namespaces at, c10 and torch, as compilers write them.
TORCH_CPP = re.compile(r"N[KVrRO]*(2at|3c10|5torch)\d")


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.partition(".")[0])
def test_no_symbol_of_torchs_cpp_interface_is_needed(library: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("there is no nm")
    listing = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    needed = listing.stdout.split()
    assert any(name.startswith("aoti_torch_") for name in needed)
    assert not [name for name in needed if TORCH_CPP.search(name)]
