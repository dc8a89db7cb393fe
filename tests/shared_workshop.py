"""Converters that are imported once for all tests of a process, as a job's own would be for each job: it takes seconds.

They end with the process: it closes what they listen to.
"""

import functools

from slimwright.runtimes import Workshop


@functools.cache
def shared_workshop() -> Workshop:
    """The workshop of whatever does not test workshops."""
    return Workshop()
