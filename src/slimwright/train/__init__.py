"""Training and fine-tuning."""

from slimwright.train.fit import Schedule, accuracy, fit

__all__ = ["Schedule", "accuracy", "fit"]
