"""Characters drawn on the fly."""

from slimwright.data.glyphs.rendered import Glyphs, glyphs, parsed

__all__ = ["Glyphs", "glyphs", "parsed"]
