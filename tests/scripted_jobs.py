"""The main job on the small net and few digits, with its data guarded, and what a test asks of one that is over."""

from dataclasses import dataclass
from pathlib import Path

from guarded_data import Guarded
from scripted_target import Scripted
from shared_workshop import shared_workshop
from slimwright import Budget, Bundle, Settings, shrink
from slimwright.data import Dataset
from slimwright.graph import Net
from slimwright.measure.bundle import CandidateRecord
from slimwright.progress import Event
from small_digits import few_digits, small_digit_net


@dataclass(frozen=True)
class Done:
    """A job that is over."""

    bundle: Bundle
    board: Scripted
    data: Guarded
    told: list[Event]

    def candidate(self, name: str) -> CandidateRecord:
        """The candidate of a name."""
        (found,) = (each for each in self.bundle.manifest.candidates if each.name == name)
        return found

    def outcomes(self) -> dict[str, str]:
        """What became of what was proposed."""
        return {decision.what: decision.outcome for decision in self.bundle.manifest.decisions}

    def reason(self, what: str) -> str:
        """Why that became of it."""
        (found,) = (each.why for each in self.bundle.manifest.decisions if each.what == what)
        return found


def done(
    board: Scripted,
    budget: Budget,
    out: Path,
    *,
    net: Net | None = None,
    data: Dataset | None = None,
    **settings: object,
) -> Done:
    """Shrink the small net. The test part is closed until the final proof, and the train part where nothing needs it.

    Training does, and rounding for a packed file, which looks at its images.
    """
    closed = () if settings.get("tune_epochs") or budget.concerns("packed_bytes") else ("train",)
    guarded, told = Guarded(data or few_digits(), "test", *closed), list[Event]()

    def tell(event: Event) -> None:
        told.append(event)
        guarded.proof_begins(event)

    how = Settings(target=board, workshop=shared_workshop(), **settings)  # type: ignore[arg-type]
    bundle = shrink(net or small_digit_net(), data=guarded, budget=budget, out=out, settings=how, tell=tell)
    return Done(bundle, board, guarded, told)
