"""Many deployments of one model: budgets by subsets of its classes."""

from slimwright.jobs.fleet.fleet import fleet, fleet_plans
from slimwright.jobs.fleet.plan_file import FleetPlan, load_plan
from slimwright.jobs.fleet.workers import Crew

__all__ = ["Crew", "FleetPlan", "fleet", "fleet_plans", "load_plan"]
