"""Which rewrites to apply."""

from slimwright.plan.knapsack import Plan, Predictor, problem, solve

__all__ = ["Plan", "Predictor", "problem", "solve"]
