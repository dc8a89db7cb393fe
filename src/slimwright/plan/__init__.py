"""Which rewrites to apply."""

from slimwright.plan.knapsack import Plan, Problem, problem, solve
from slimwright.plan.measured import MOST, MeasuredPlan, plan_by_measuring
from slimwright.plan.predictor import CP_RANK, IN_RANK, OUT_RANK, Predictor, factorisable, rank_damages

__all__ = [
    "CP_RANK",
    "IN_RANK",
    "MOST",
    "OUT_RANK",
    "MeasuredPlan",
    "Plan",
    "Predictor",
    "Problem",
    "factorisable",
    "plan_by_measuring",
    "problem",
    "rank_damages",
    "solve",
]
