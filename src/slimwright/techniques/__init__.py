"""Regions replaced by cheaper ones, and their weights solved again."""

from slimwright.techniques.recipe import Recipe, apply

__all__ = ["Recipe", "apply"]
