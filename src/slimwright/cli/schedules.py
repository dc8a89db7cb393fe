"""What a command line says of training, as a schedule."""

from collections.abc import Sequence

from slimwright.errors import RequestError
from slimwright.train import Schedule

NUMBERS = {  # that `--schedule` may set, and what a text is read as
    "patience": int,
    "minutes": float,
    "momentum": float,
    "weight_decay": float,
    "average_over": float,
    "longest_gradient": float,
    "label_smoothing": float,
    "seed": int,
}


def schedule_of(epochs: int | None, rate: float | None, batch_size: int | None, others: Sequence[str]) -> Schedule:
    """Return the schedule with what was given, the rest as usual. `others` are texts such as "patience=5".

    Raises RequestError for a name or a number that there is not.
    """
    given: dict[str, float | int | None] = {"epochs": epochs, "rate": rate, "batch_size": batch_size}
    for text in others:
        name, _, number = text.partition("=")
        if name not in NUMBERS:
            raise RequestError(f"--schedule knows no '{name}'; it sets {', '.join(NUMBERS)}, as in patience=5")
        try:
            given[name] = NUMBERS[name](number)
        except ValueError as error:
            raise RequestError(f"--schedule {text}: '{number}' is not a number for {name}") from error
    return Schedule(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
