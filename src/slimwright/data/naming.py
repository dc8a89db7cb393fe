"""Classes by name: which of a model's outputs a data set's labels are."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from slimwright.errors import DataError
from slimwright.reading import text_of

MOST_BYTES = 4_000_000  # of a file of names
SHOWN = 5  # names in an error


def class_names(text: str) -> tuple[str, ...]:
    """Return the names in a file, one a line, or in a text such as "cat,dog".

    Raises DataError where there are none, where one is there twice, and for a file that is not text.
    """
    path = Path(text)
    if path.is_file():
        found = text_of(path, "a file of class names, one on each line", DataError, MOST_BYTES).splitlines()
    elif path.suffix in (".txt", ".names", ".labels"):
        raise DataError(f"there is no file {path}; give a file of class names, or the names with commas between them")
    else:
        found = text.split(",")
    names = tuple(name.strip() for name in found if name.strip())
    twice = [name for name, times in Counter(names).items() if times > 1]
    if not names or twice:
        raise DataError(f"'{text}' names {'no classes' if not names else f'{twice[0]!r} twice'}; name each class once")
    return names


def places_of(labels: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    """Return where each label stands among the names. Raises DataError for labels that are not there."""
    place = {name: number for number, name in enumerate(names)}
    missing = [label for label in labels if label not in place]
    if missing or not labels:
        said = ", ".join(f"'{label}'{_perhaps(label, names)}" for label in missing[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise DataError(
            f"the model's {len(names)} classes do not name {said}{more}; the data's labels must be called as there"
            if labels
            else "the data has no labels to look for among the model's classes"
        )
    return tuple(place[label] for label in labels)


def _perhaps(label: str, names: Sequence[str]) -> str:
    near = get_close_matches(label, names, 1)
    return f" (is it '{near[0]}'?)" if near else ""
