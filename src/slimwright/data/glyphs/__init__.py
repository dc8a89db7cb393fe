"""Characters drawn on the fly: one to a picture, or scenes of several with their truth known."""

from slimwright.data.glyphs.rendered import Glyphs, glyphs, parsed
from slimwright.data.glyphs.scenes import SceneData, Scenes, parsed_scenes, scenes

__all__ = ["Glyphs", "SceneData", "Scenes", "glyphs", "parsed", "parsed_scenes", "scenes"]
