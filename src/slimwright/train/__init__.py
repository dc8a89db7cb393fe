"""Training and fine-tuning."""

from slimwright.train.fit import accuracy, fit
from slimwright.train.fit_regions import RegionSchedule, fit_regions
from slimwright.train.loss import Match, paired
from slimwright.train.region import Region, regions_in
from slimwright.train.run import mean_loss
from slimwright.train.schedule import Schedule

__all__ = [
    "Match",
    "Region",
    "RegionSchedule",
    "Schedule",
    "accuracy",
    "fit",
    "fit_regions",
    "mean_loss",
    "paired",
    "regions_in",
]
