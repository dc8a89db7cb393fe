"""Where commands print: results to standard output, progress and errors to standard error."""

from rich.console import Console

out_console, err_console = Console(), Console(stderr=True)
