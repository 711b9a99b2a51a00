"""The plan: an architecture as a flat list of ops, with its configuration and shapes."""

from fewbit.plan.plan import OPS, Op, Plan

__all__ = ["OPS", "Op", "Plan"]
