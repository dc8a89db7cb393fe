"""Every error that slimwright raises on purpose.

    SlimwrightError
    ├── RequestError            the request was wrong: exit status 2
    │   ├── ModelError          the model cannot be read, or cannot take this input
    │   │   └── UnsupportedOp   an operator that slimwright does not know yet
    │   ├── DataError           the data set is missing, empty or of the wrong shape
    │   ├── BudgetError         a limit that is not a limit
    │   ├── ProfileError        a device profile that is missing or not valid
    │   ├── BundleError         a bundle that is incomplete or was changed
    │   ├── CodecError          a compressed picture or a message that cannot be decoded, or a size that cannot be met
    │   └── MissingExtra        packages that an extra brings are not installed
    ├── ConversionError         a converter failed, crashed or took too long: exit status 1
    ├── DeviceError             a device could not be reached, or could not do the job: exit status 1
    └── ProofError              an artefact that does not compute what its net computes: exit status 1

A budget that is missed is no error: the best model found is still saved, and the exit status is 1.
"""

from importlib.util import find_spec


class SlimwrightError(Exception):
    """What was wrong, where, and what to do about it."""


class RequestError(SlimwrightError):
    """The request was wrong."""


class ModelError(RequestError):
    """The model cannot be read, or cannot take this input."""


class UnsupportedOp(ModelError):
    """An operator that slimwright does not know yet."""


class DataError(RequestError):
    """The data set is missing, empty or of the wrong shape."""


class BudgetError(RequestError):
    """A limit that is not a limit."""


class ProfileError(RequestError):
    """A device profile that is missing or not valid."""


class BundleError(RequestError):
    """A bundle that is incomplete or was changed."""


class CodecError(RequestError):
    """A compressed picture or a message cannot be decoded, or a size cannot be met."""


class MissingExtra(RequestError):
    """Packages that an extra brings are not installed."""


class ProofError(SlimwrightError):
    """An artefact does not compute what its net computes."""


class ConversionError(SlimwrightError):
    """A converter failed, crashed or took too long."""


class DeviceError(SlimwrightError):
    """A device could not be reached, or could not do the job."""


def check_extra(extra: str, what: str, *modules: str) -> None:
    """Raise MissingExtra where modules that an extra of the package brings are missing; `what` says what needs them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtra(f"{what} {' and '.join(missing)}: python -m pip install 'slimwright[{extra}]'")
