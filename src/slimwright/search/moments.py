"""The least damaging choice under a limit on peak memory: a mixed-integer program, solved by HiGHS.

Peak memory is no sum, but it is the largest of sums: the values that are live at each moment. Each grows with the
channels of the groups that it depends on, so that a limit on the peak is one linear limit for each moment. One variable
for each setting of each group says whether it is taken (a multiple-choice knapsack of several dimensions). The bound
that the solver proves is the least damage of any choice. Ranks and bits change no value that is counted, and stay
whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from slimwright.graph.liveness import plan_memory
from slimwright.search.choices import Counts
from slimwright.search.dual import Bound
from slimwright.search.predictor import Predictor

PEAK = "peak_activation_bytes"
GAP, SECONDS = 1e-3, 5.0  # that is left between a plan and the bound, and after which the solver stops at a larger one
MEGABYTE = 1e6  # limits are in these, since the solver's tolerance is absolute


@dataclass(frozen=True)
class Moments:
    """What is live at each moment [T], in bytes: of the whole net, and for each channel of a group [T, items]."""

    items: Sequence[str]
    whole: NDArray[np.float64]
    each: NDArray[np.float64]

    @classmethod
    def of(cls, predictor: Predictor) -> "Moments":
        """Return the moments of a predictor's net; of those that are alike, one."""
        net, elements = predictor.net, predictor.coupling.elements
        plan = plan_memory(net)
        items = [name for name in predictor.sizes if any(name in of for of in elements.values())]
        place = {name: number for number, name in enumerate(items)}
        each = np.zeros((len(net.nodes), len(items)))
        for buffer in plan.buffers:
            for group, count in elements[buffer.name].items():
                each[buffer.first : buffer.last + 1, place[group]] += 4 * count
        whole = np.array(plan.live_bytes, np.float64)
        _, kept = np.unique(np.column_stack([whole, each]), axis=0, return_index=True)
        return cls(items, whole[kept], each[kept])

    def least(
        self, sizes: Mapping[str, Sequence[int]], damage: Mapping[str, Callable[[int], float]], limit: float
    ) -> Bound | None:
        """Return the least damage within a limit in bytes, and the choice; None where the solver found none.

        Where nothing fits, the limit is the peak of the smallest choice there is.
        """
        smallest = self._live({name: min(sizes[name]) for name in self.items}, sizes).max(initial=0.0)
        limit = max(limit, float(smallest))
        binding, every = self.whole > limit, {name: some[0] for name, some in sizes.items()}
        if not binding.any():
            return Bound(0.0, [every])
        settings = [(column, name, size) for column, name in enumerate(self.items) for size in sizes[name]]
        saved = np.stack(
            [self.each[:, column] * (sizes[name][0] - size) for column, name, size in settings], axis=1
        )  # [T, settings]
        chosen = csr_array(
            (np.ones(len(settings)), ([column for column, *_ in settings], range(len(settings)))),
            shape=(len(self.items), len(settings)),
        )
        found = milp(
            np.array([damage[name](size) for _, name, size in settings]),
            integrality=np.ones(len(settings)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(chosen, 1, 1),
                LinearConstraint(
                    csr_array(saved[binding] / MEGABYTE), (self.whole[binding] - limit) / MEGABYTE, np.inf
                ),
            ],
            options={"mip_rel_gap": GAP, "time_limit": SECONDS},
        )
        if found.x is None:
            return None
        taken = {name: size for (_, name, size), share in zip(settings, found.x, strict=True) if share > 0.5}
        return Bound(float(found.mip_dual_bound), [{**every, **taken}])

    def _live(self, counts: Counts, sizes: Mapping[str, Sequence[int]]) -> NDArray[np.float64]:
        gone = np.array([sizes[name][0] - counts[name] for name in self.items], np.float64)
        return self.whole - self.each @ gone
