"""What runs on a device: loads an artefact, runs it, times it. Standard library, numpy and one runtime; nothing else.

It travels to boards as one file (`packed`), so no module here may import from the rest of slimwright.
"""

VERSION = "2"  # raised whenever jobs, results or how it is called change
