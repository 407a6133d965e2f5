"""Tables, figures and the page of a run. Reads run directories; imports nothing from training."""

from dsink_jax.report.canvas import MissingMatplotlibError
from dsink_jax.report.figures import heat_map_figure
from dsink_jax.report.page import write_report
from dsink_jax.report.tables import align, percent, results_table
from dsink_jax.report.tensorboard import write_events

__all__ = [
    "MissingMatplotlibError",
    "align",
    "heat_map_figure",
    "percent",
    "results_table",
    "write_events",
    "write_report",
]
