"""Answer-level evaluation: does perception help, and does the model read it or only profit from its presence?"""

from moai.evaluation.metrics import exact_match, normalize
from moai.evaluation.paired import CONDITIONS, Record, run_conditions
from moai.evaluation.report import render_table, save_report, summarize

__all__ = [
    "CONDITIONS",
    "Record",
    "exact_match",
    "normalize",
    "render_table",
    "run_conditions",
    "save_report",
    "summarize",
]
