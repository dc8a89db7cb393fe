"""`python -m slimwright` is the command line."""

from slimwright.cli import main

main()
