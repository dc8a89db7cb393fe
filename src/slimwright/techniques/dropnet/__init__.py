"""Units dropped by training again and again from the first weights."""

from slimwright.techniques.dropnet.dropping import Loop, Rule, counts_per_round, filters_of
from slimwright.techniques.dropnet.loop import dropnet, retrained
from slimwright.techniques.dropnet.rounds import Round
from slimwright.techniques.dropnet.training import AS_PUBLISHED

__all__ = ["AS_PUBLISHED", "Loop", "Round", "Rule", "counts_per_round", "dropnet", "filters_of", "retrained"]
