"""Policies that try candidates: one way round for all of them.

First the whole net is measured in the precisions that pay. Then a method tries candidates of it, each judged by weights
that are solved on few images. The best few are solved on all of them, and tuned where they lose too much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from slimwright.errors import RequestError
from slimwright.search.journal import Journal
from slimwright.search.measured_plan import in_full, is_good_enough, quantized_wholes
from slimwright.search.planning import MEASURED, Whole
from slimwright.search.policies.ddpg import ddpg
from slimwright.search.policies.netadapt import netadapt
from slimwright.search.policies.parameters import LEARNED_FILE, Parameters
from slimwright.search.policies.reinforce import reinforce
from slimwright.search.policies.reward import Reward, limit_share
from slimwright.search.policies.sampled import NSGA2, TPE, sampled
from slimwright.search.policies.tries import Tries
from slimwright.search.policies.uniform import uniform
from slimwright.search.rounded import is_packed
from slimwright.search.space import Evaluate, Evaluation, Space
from slimwright.search.tuning import tuned

REINFORCE, DDPG, NETADAPT, RANDOM = "reinforce", "ddpg", "netadapt", "random"
LEARNING = (REINFORCE, DDPG)  # those that have parameters
METHODS = (REINFORCE, DDPG, NSGA2, TPE, NETADAPT, RANDOM)
FEW = 3  # candidates that are solved in full
LEARNED = "learned"  # the key of a search's parameters in the journal


@dataclass(frozen=True)
class Search:
    """The policy that tries at most so many `evaluations` by a method of `METHODS`.

    `start` holds what a search before has learned. Without a `reward`, REINFORCE takes the paper's, its threshold of
    the cost at the budget's limit. Raises RequestError for what does not go together.
    """

    method: str
    evaluations: int = 200
    seed: int = 0
    start: Parameters | None = None
    reward: Reward | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RequestError(f"there is no policy {self.method!r}; there are plan, {', '.join(METHODS)}")
        if self.evaluations < 1:
            raise RequestError(f"a search needs at least 1 evaluation, not {self.evaluations}")
        if self.start is not None and self.method != self.start.policy:
            raise RequestError(f"the policy {self.method!r} cannot start from what {self.start.policy!r} has learned")

    @property
    def said(self) -> str:
        """All that shapes what the search finds, as text."""
        start = self.start.digest if self.start else ""
        return f"search {self.method} {self.evaluations} {self.seed} {start} {self.reward!r}"

    def __call__(self, space: Space, evaluate: Evaluate, journal: Journal) -> Evaluation:
        """Return the evaluation to ship."""
        if is_packed(space) or space.budget.objective:
            what = "a packed file" if is_packed(space) else "the least of a cost"
            raise RequestError(
                f"the policy {self.method!r} tries nets within limits; {what} is found by the policy plan"
            )
        wholes = [Whole("fp32", space.original), *(quantized_wholes(space, evaluate) if _pays(space) else ())]
        best = space.best([whole.seen for whole in wholes])
        if is_good_enough(space, best):
            space.note("search", "not chosen", "a whole network is within the budget already; nothing has to be cut")
            return best
        tries = Tries(space, evaluate, _whole_of(space, wholes), self.method, self.evaluations, self.seed)
        parameters = self._tried(tries)
        if parameters:
            keep_learned(journal, Parameters(self.method, parameters))
        made = [whole.seen for whole in wholes] + [*tries.made.values()]
        return space.best(_finished(space, evaluate, journal, made))

    def _tried(self, tries: Tries) -> Mapping[str, Tensor]:
        """Try candidates, and return what was learned."""
        match self.method:
            case "reinforce":
                return reinforce(tries, self.reward or Reward(cost=limit_share(tries.space)), self.start)
            case "ddpg":
                return ddpg(tries, self.start)
            case "nsga2" | "tpe":
                sampled(tries)
            case "netadapt":
                netadapt(tries)
            case _:
                uniform(tries)
        return {}


def keep_learned(journal: Journal, parameters: Parameters) -> None:
    """Keep what was learned beside the journal, where a job that ended can find it again."""
    with journal.writing(LEARNED) as folder:
        parameters.save(folder / LEARNED_FILE)
    journal.add(LEARNED, {"policy": parameters.policy})


def _pays(space: Space) -> bool:
    """True where a limit is on what another precision saves."""
    return any(name in MEASURED for name in space.limits)


def _whole_of(space: Space, wholes: Sequence[Whole]) -> Whole:
    """The whole net in the fastest precision that loses no more than is allowed."""
    holding = [whole for whole in wholes if space.drop(whole.seen) <= space.budget.max_drop]
    return min(holding or wholes[:1], key=lambda whole: whole.seen.latency_ms)


def _finished(space: Space, evaluate: Evaluate, journal: Journal, made: Sequence[Evaluation]) -> list[Evaluation]:
    """The best few solved in full and tuned, before all others: of equals, the first is shipped."""
    rest, full = [*made], list[Evaluation]()
    while len(full) < FEW and (best := space.best([space.original, *rest])).key != space.original.key:
        rest.remove(best)
        full.append(in_full(space, evaluate, best))
    for one in full[:1] if space.tune.minutes is not None else [*full]:
        full += tuned(space, evaluate, journal, one)
    return [*full, *made]
