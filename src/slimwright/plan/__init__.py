"""Which rewrites to apply."""

from slimwright.plan.knapsack import Plan, Predictor, Problem, problem, solve
from slimwright.plan.measured import MOST, MeasuredPlan, plan_by_measuring

__all__ = ["MOST", "MeasuredPlan", "Plan", "Predictor", "Problem", "plan_by_measuring", "problem", "solve"]
