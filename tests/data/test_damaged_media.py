from pathlib import Path

import pytest
from fuzz_media import fuzz


@pytest.mark.slow
def test_a_damaged_file_is_a_clip_or_an_error(tmp_path: Path) -> None:
    outcomes = fuzz(tmp_path, 48, seed=1)
    assert sum(outcomes.values()) == 48
    assert min(outcomes["clips"], outcomes["errors"]) > 0
