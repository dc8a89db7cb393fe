"""Code that runs a bundle's model in an app: preprocessing, inference, what the outputs mean, and a self-test."""

from slimwright.jobs.kit.facts import LANGUAGES, Facts, Language, facts_of
from slimwright.jobs.kit.writing import KIT, Kit, kit, texts

__all__ = ["KIT", "LANGUAGES", "Facts", "Kit", "Language", "facts_of", "kit", "texts"]
