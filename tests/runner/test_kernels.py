"""Kernels of several rounds: those of the round in which a side was fastest."""

from collections.abc import Callable, Sequence

from slimwright.runner.job import Job, Side
from slimwright.runner.measure import _kernels
from slimwright.runner.sessions.session import Array, Kernel

SIDE = Side("a", "onnxruntime", "fp32", ("model.onnx",), ((1, 3),))


class Drifting:
    """A session whose kernels take other times in each round."""

    planned_bytes: int | None = None

    def __init__(self, *rounds: float) -> None:
        self.rounds, self.asked = list(rounds), list[int]()

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return what it was given."""
        return inputs

    def profile(self, inputs: Sequence[Array], runs: int, before: Callable[[], object]) -> list[Kernel]:
        """Return one kernel, and one that takes twice as long."""
        self.asked.append(runs)
        ms = self.rounds.pop(0)
        return [Kernel("one", "Conv", ms), Kernel("other", "Gemm", 2 * ms)]


def test_each_side_has_the_kernels_of_its_fastest_round() -> None:
    sessions = [Drifting(3.0, 1.0, 2.0), Drifting(0.5, 4.0, 4.0)]
    found = _kernels(Job((SIDE, SIDE), profile_runs=7, profile_rounds=3), sessions, [[], []])
    assert [[kernel.ms for kernel in kernels] for kernels in found] == [[1.0, 2.0], [0.5, 1.0]]
    assert [session.asked for session in sessions] == [[7, 7, 7]] * 2


def test_nothing_is_profiled_that_was_not_asked_for() -> None:
    session = Drifting()
    assert _kernels(Job((SIDE,)), [session], [[]]) == [] and session.asked == []
