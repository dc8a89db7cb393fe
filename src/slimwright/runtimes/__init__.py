"""The runtimes that will run the result, one file each: how a net becomes an artefact of it.

`export` writes an artefact's files; it runs in a child process (`Workshop`), where converters may print, leave files
behind or crash. How artefacts are loaded and run is the runner's part, which travels to the device.
"""

from slimwright.runtimes.artefact import PRECISIONS, Artefact, Precision
from slimwright.runtimes.convert import Workshop, convert, lent
from slimwright.runtimes.known import RUNTIMES

__all__ = ["PRECISIONS", "RUNTIMES", "Artefact", "Precision", "Workshop", "convert", "lent"]
