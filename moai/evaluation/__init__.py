"""Answer-level evaluation: does perception help, and does the model read it or only profit from its presence?"""

from moai.evaluation.compare import compare_runs
from moai.evaluation.conditions import CONDITIONS
from moai.evaluation.evaluate import evaluate_run
from moai.evaluation.metrics import exact_match, normalize
from moai.evaluation.paired import Record, run_conditions
from moai.evaluation.report.save import save_report
from moai.evaluation.report.table import render_table
from moai.evaluation.report.verdict import verdict
from moai.evaluation.summary import summarize

__all__ = [
    "CONDITIONS",
    "Record",
    "compare_runs",
    "evaluate_run",
    "exact_match",
    "normalize",
    "render_table",
    "run_conditions",
    "save_report",
    "summarize",
    "verdict",
]
