"""Regions replaced by cheaper ones, and their weights solved again: one file a technique."""

from slimwright.techniques.bits import most_damaged
from slimwright.techniques.equalise import equalised
from slimwright.techniques.factorise import Factorise, Ranks, in_turns
from slimwright.techniques.fold import Fold, fold_batch_norm
from slimwright.techniques.hash import Hash
from slimwright.techniques.knobs import Choice, Knob, Observed
from slimwright.techniques.merge import Merge
from slimwright.techniques.pricing import importances, observed, rounded_net, usual_price
from slimwright.techniques.prune import Prune
from slimwright.techniques.quantize import Quantize, Rounding, corrected_for_runtime, encoded, quantized
from slimwright.techniques.recipe import TECHNIQUES, Recipe, applied, apply, load_recipe, recipe_type, sentences
from slimwright.techniques.regions import Regions
from slimwright.techniques.remove import Remove
from slimwright.techniques.round import Round
from slimwright.techniques.share import Share
from slimwright.techniques.solve import Solve
from slimwright.techniques.sparsify import Sparsify
from slimwright.techniques.subset import Subset
from slimwright.techniques.technique import Step, Technique, Work
from slimwright.techniques.trim import Trim
from slimwright.techniques.tune import Tune

__all__ = [
    "TECHNIQUES",
    "Choice",
    "Factorise",
    "Fold",
    "Hash",
    "Knob",
    "Merge",
    "Observed",
    "Prune",
    "Quantize",
    "Ranks",
    "Recipe",
    "Regions",
    "Remove",
    "Round",
    "Rounding",
    "Share",
    "Solve",
    "Sparsify",
    "Step",
    "Subset",
    "Technique",
    "Trim",
    "Tune",
    "Work",
    "applied",
    "apply",
    "corrected_for_runtime",
    "encoded",
    "equalised",
    "fold_batch_norm",
    "importances",
    "in_turns",
    "load_recipe",
    "most_damaged",
    "observed",
    "quantized",
    "recipe_type",
    "rounded_net",
    "sentences",
    "usual_price",
]
