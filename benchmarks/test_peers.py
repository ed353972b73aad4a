"""Other libraries and plain PyTorch on `square`, `long`, `pair` and `series`, and our time in the same process."""

from dataclasses import replace

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cases import LONG, PAIR, SERIES, SQUARE, Workload, inputs, once, ours
from benchmarks.conftest import Record
from benchmarks.limit import seconds_of, synchronize
from benchmarks.machine import about
from benchmarks.oracle import PEER_TOLERANCES, Question, check
from benchmarks.peers import PEERS, Distance, Peer
from benchmarks.timing import samples_of, time_rounds
from scav_kernels import reference

# Slower ones are timed on fewer pairs, and their time scaled.
LONGEST = 0.5
# Sequences on a side of the first trial, which double while there is time.
TRIAL = {"square": 8, "long": 1, "pair": 1, "series": 8}

# Their warnings are theirs.
pytestmark = pytest.mark.filterwarnings("default")


def parameter(peer: Peer, work: Workload, direction: str) -> object:
    marks = [] if peer.name.startswith("PyTorch") else [pytest.mark.slow]
    if peer.device == "cuda":
        marks.append(pytest.mark.gpu)
    return pytest.param(peer, work, direction, id=f"{peer}-{work.name}-D{work.d}-{direction}", marks=marks)


@pytest.mark.parametrize(
    ("peer", "work", "direction"),
    [
        parameter(peer, work, direction)
        for peer in PEERS
        # What compiles does so for all pairs, which is more than memory holds of the long ones.
        for work in (SQUARE, replace(SQUARE, d=64), *([] if peer.compiles else [LONG, PAIR, SERIES]))
        for direction in peer.directions
        if peer.op in work.ops
    ],
)
def test_peer(
    benchmark: BenchmarkFixture, record: Record, smoke: bool, peer: Peer, work: Workload, direction: str
) -> None:
    name = f"{peer}-{work.name}-D{work.d}-{direction}"
    facts = {"op": peer.op, "peer": peer.name, "workload": work.name, "d": work.d, "direction": direction}
    try:
        distance = peer.load()
    except ImportError as reason:
        record("peers", name, **facts, skipped=str(reason))
        pytest.skip(str(reason))
    if peer.compiles:
        # For this shape alone.
        torch.compiler.reset()
    full = work.tiny() if smoke else work
    part = full if smoke or peer.compiles else affordable(distance, full, direction, peer.device)
    right = peer.reference or getattr(reference, peer.op)
    question = Question(right, tuple(peer.options.items()), part, device=peer.device)
    check(distance, question, direction, PEER_TOLERANCES)

    gradient = direction == "forward_backward"
    theirs, whole = (inputs(work, device=peer.device, gradient=gradient) for work in (part, full))

    def run() -> None:
        once(distance, theirs, direction)
        synchronize(peer.device)

    times = time_rounds(benchmark, run, rounds=full.rounds)
    own = ours(peer.op, **peer.options)
    our_samples = samples_of(lambda: once(own, whole, direction), peer.device)
    our_seconds = min(our_samples)
    scale = full.b1 * full.b2 / (part.b1 * part.b2)
    facts |= {
        "shapes": [list(steps.shape) for steps in whole[:2]],
        "timed_pairs": part.b1 * part.b2,
        "scaled_by": scale,
        "scaled_seconds": times["seconds"] * scale,
        "our_seconds": our_seconds,
        "our_samples_seconds": our_samples,
        "times_ours": times["seconds"] * scale / our_seconds,
    }
    benchmark.extra_info |= facts | {"machine": about()}
    record("peers", name, **facts, **times)


def affordable(distance: Distance, work: Workload, direction: str, device: str) -> Workload:
    """The workload with as many sequences as take no longer than `LONGEST`."""
    first = TRIAL[work.name]
    trial = replace(work, b1=first, b2=first)
    while trial.b1 < work.b1:
        batch = inputs(trial, device=device, gradient=direction == "forward_backward")
        # The first call may load or compile.
        seconds = min(seconds_of(lambda batch=batch: once(distance, batch, direction), device) for _ in range(2))
        if 4 * seconds > LONGEST:
            break
        trial = replace(trial, b1=2 * trial.b1, b2=2 * trial.b2)
    return trial
