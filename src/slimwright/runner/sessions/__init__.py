"""One file a runtime: load an artefact and run it, one image at a time, as a device would."""

from slimwright.runner.sessions.session import Kernel, Session, open_session

__all__ = ["Kernel", "Session", "open_session"]
