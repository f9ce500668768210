"""A run within a forgetting budget: what is left open is chosen by pilot runs, and what is saved keeps the budget."""

from afterword.budget.run import foresee, run_within_budget

__all__ = ["foresee", "run_within_budget"]
