"""Training and fine-tuning."""

from slimwright.train.fit import fit
from slimwright.train.fit_regions import RegionSchedule, fit_regions
from slimwright.train.levels import keep_on_levels, settle_on_levels
from slimwright.train.loss import Match, paired
from slimwright.train.memory_plan import fit_bytes, schedule_within
from slimwright.train.region import Region, regions_in
from slimwright.train.schedule import Schedule
from slimwright.train.scoring import mean_loss, score
from slimwright.train.ties import FREE, ZERO, equals_of, tie, tied, zeros_of

__all__ = [
    "FREE",
    "ZERO",
    "Match",
    "Region",
    "RegionSchedule",
    "Schedule",
    "equals_of",
    "fit",
    "fit_bytes",
    "fit_regions",
    "keep_on_levels",
    "mean_loss",
    "paired",
    "regions_in",
    "schedule_within",
    "score",
    "settle_on_levels",
    "tie",
    "tied",
    "zeros_of",
]
