"""Step 7, the annex: variants of the model compared, and the model trained."""

from helpers.annex.comparison import compare
from helpers.annex.display import accuracy_table, guard_table, markdown, show_ratios
from helpers.annex.entries import admit, measure, score
from helpers.annex.pauses import measure_pauses
from helpers.annex.plots import plot_accuracy, plot_pauses, plot_ratios
from helpers.annex.training import train_model
from helpers.annex.variants.select import variants_problem

__all__ = ["accuracy_table", "admit", "compare", "guard_table", "markdown", "measure"]
__all__ += ["measure_pauses", "plot_accuracy", "plot_pauses", "plot_ratios", "score"]
__all__ += ["show_ratios", "train_model", "variants_problem"]
