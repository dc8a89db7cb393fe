"""What the maker of an `.onnx` file wrote into its metadata: texts by name, such as a reader's alphabet."""

from collections.abc import Mapping
from pathlib import Path

from slimwright.importers.onnx.file import parsed


def metadata(path: Path) -> Mapping[str, str]:
    """Return the entries of metadata_props. Raises ModelError where the file cannot be read."""
    return {str(entry.key): str(entry.value) for entry in parsed(path).metadata_props}
