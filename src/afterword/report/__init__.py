"""Run folders → a page, its Markdown twin and a model card. Reads files only: no torch, no training."""

from afterword.report.frontier import write_comparison
from afterword.report.pages import write_model_card, write_report

__all__ = ["write_comparison", "write_model_card", "write_report"]
