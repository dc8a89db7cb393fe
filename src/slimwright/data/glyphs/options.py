"""Options of drawn data sets, as a command line gives them: `classes=20,size=64,train=2000`."""

from collections.abc import Mapping

from slimwright.errors import DataError

Number = int | float


def numbers_of(options: str, known: Mapping[str, Number], what: str) -> dict[str, Number]:
    """Return the numbers of all options that are `known`, as given or else as they are there, of the same type.

    Raises DataError, naming the data set, `what`, and what there is.
    """
    given = dict(known)
    for option in filter(None, options.split(",")):
        name, _, text = option.partition("=")
        if name not in known:
            raise DataError(f"{what} knows no option '{option}'; give NAME=NUMBER with a name of {', '.join(known)}")
        try:
            given[name] = type(known[name])(text)
        except ValueError as error:
            raise DataError(f"{what}: {text!r} in '{option}' is no number; write {name}={known[name]}, say") from error
    return given
