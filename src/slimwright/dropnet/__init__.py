"""Units dropped by training again and again from the first weights."""

from slimwright.dropnet.dropping import Loop, Rule, counts_per_round, filters_of
from slimwright.dropnet.loop import dropnet, retrained
from slimwright.dropnet.rounds import Round
from slimwright.dropnet.training import Training

__all__ = ["Loop", "Round", "Rule", "Training", "counts_per_round", "dropnet", "filters_of", "retrained"]
