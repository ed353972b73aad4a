import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scav_model.data.workers import WorkerDied, WorkerError, WorkerTimeout, ordered_map, parallel_map

pytestmark = pytest.mark.slow


def double(number: int) -> int:
    return 2 * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise RuntimeError("three")
    return number


def report_and_wait(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(300)


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(parallel_map(double, range(20), workers=workers, description="")) == list(range(0, 40, 2))


def touch(path: Path) -> None:
    path.touch()


def test_a_slow_taker_is_not_flooded(tmp_path: Path) -> None:
    results = ordered_map(touch, [tmp_path / str(number) for number in range(50)], workers=1, waiting=4)
    next(results)
    # Three for the worker and four that wait, and the one that was taken.
    end = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 7 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    assert 7 <= len(list(tmp_path.iterdir())) <= 8
    assert len(list(results)) == 49


def die(number: int) -> None:
    os._exit(3)


def test_a_worker_that_dies_is_an_error_not_a_wait() -> None:
    with pytest.raises(WorkerDied, match=r"a worker process died \(exit code 3\)"):
        list(ordered_map(die, range(3), workers=1))


def misbehave(task: tuple[str, Path]) -> str:
    """Does what its name says, and notes the attempt in a file, and when it began and ended."""
    name, folder = task
    with (folder / name).open("a") as file:
        file.write(f"{time.monotonic()} ")
        file.flush()
        if name == "sleep for ever":
            time.sleep(300)
        if name == "ignore SIGTERM":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(300)
        if name == "spin in C":
            sum(range(10**12))  # holds the GIL, and so runs no Python handler of a signal
        if name.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[name])
        if name == "die once" and len((folder / name).read_text().split()) == 1:
            os._exit(3)
        if name == "exit":
            sys.exit(5)
        if name == "end of file":
            raise EOFError(name)
        if name == "unpicklable":
            raise type("LocalError", (Exception,), {})(name)
        time.sleep(0.3)
        file.write(f"{time.monotonic()} ")
    return name


def reason(task: tuple[str, Path], error: WorkerError) -> str:
    return f"{task[0]}: {error}"


@pytest.mark.parametrize("name", ["sleep for ever", "ignore SIGTERM", "spin in C"])
def test_a_worker_that_takes_too_long_costs_its_item_alone(name: str, tmp_path: Path) -> None:
    tasks = [(name, tmp_path), ("well", tmp_path)]
    found = list(ordered_map(misbehave, tasks, workers=1, seconds=1, replace=reason))
    assert found == [f"{name}: a worker process took longer than 1 s", "well"]
    assert len((tmp_path / name).read_text().split()) == 1, "it was tried again"


def test_a_worker_that_dies_costs_its_item_alone(tmp_path: Path) -> None:
    names = ["well", "SIGSEGV", "exit", "die once", "fine"]
    found = list(ordered_map(misbehave, [(name, tmp_path) for name in names], workers=2, replace=reason))
    died = [f"{name}: a worker process died ({how})" for name, how in (("SIGSEGV", "SIGSEGV"), ("exit", "exit code 5"))]
    assert found == ["well", *died, "die once", "fine"]
    assert [len((tmp_path / name).read_text().split()) for name in ("SIGSEGV", "exit")] == [2, 2]


def test_what_killed_its_worker_is_tried_again_alone(tmp_path: Path) -> None:
    names = ["die once", *(f"fine {number}" for number in range(8))]
    found = list(ordered_map(misbehave, [(name, tmp_path) for name in names], workers=2, replace=reason))
    assert found == names
    times = {name: [float(word) for word in (tmp_path / name).read_text().split()] for name in names}
    begun, ended = times["die once"][1:]
    assert all(last <= begun or first >= ended for first, last in list(times.values())[1:])


def test_without_a_replacement_the_fault_is_raised(tmp_path: Path) -> None:
    with pytest.raises(WorkerTimeout, match=r"took longer than 0\.5 s"):
        list(ordered_map(misbehave, [("sleep for ever", tmp_path)], workers=1, seconds=0.5))
    with pytest.raises(WorkerDied, match="SIGKILL, perhaps for want of memory"):
        list(ordered_map(misbehave, [("SIGKILL", tmp_path)], workers=1))


def test_errors_keep_their_type_where_they_can_be_sent(tmp_path: Path) -> None:
    with pytest.raises(EOFError, match="end of file"):
        list(ordered_map(misbehave, [("end of file", tmp_path)], workers=1))
    with pytest.raises(RuntimeError, match="LocalError: unpicklable"):
        list(ordered_map(misbehave, [("unpicklable", tmp_path)], workers=1))


class Unloadable:
    """A function whose import fails in the worker."""

    def __call__(self, number: int) -> int:
        return number

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)


def test_a_worker_that_cannot_start_is_an_error() -> None:
    with pytest.raises(WorkerError, match=r"could not start \(exit code 9\): expected memory .*__main__"):
        list(ordered_map(Unloadable(), [1, 2], workers=1, replace=lambda item, error: -1))


def test_leaving_early_ends_workers_that_are_stuck(tmp_path: Path) -> None:
    names = ["fine", "ignore SIGTERM", "spin in C"]
    results = ordered_map(misbehave, [(name, tmp_path) for name in names], workers=2)
    next(results)
    wait_for(lambda: all((tmp_path / name).exists() for name in names))
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 3
    assert not multiprocessing.active_children()


def test_an_error_in_a_worker_is_raised_here() -> None:
    with pytest.raises(RuntimeError, match="three"):
        list(parallel_map(fail_at_three, range(20), workers=1, description=""))


def test_fewer_than_no_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or more worker processes, got -1"):
        list(parallel_map(double, [1], workers=-1, description=""))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for the worker in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_workers import report_and_wait\n"
        "from scav_model.data.workers import parallel_map\n"
        "if __name__ == '__main__':\n"
        "    list(parallel_map(report_and_wait, [Path(sys.argv[1])], workers=1, description=''))\n"
    )
    report = tmp_path / "worker"
    parent = subprocess.Popen([sys.executable, str(program), str(report)], stderr=subprocess.DEVNULL)
    worker = int(wait_for(lambda: report.exists() and report.read_text()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not runs(worker))


def runs(process: int) -> bool:
    """Return True if the process runs and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return str(value)
