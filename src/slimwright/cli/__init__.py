"""The command line."""

from slimwright.cli.main import app, main

__all__ = ["app", "main"]
