"""Step 7, the annex: variants of the model compared, and the model trained."""

from helpers.annex.comparison import compare
from helpers.annex.display import accuracy_table, guard_table, markdown, show_ratios
from helpers.annex.entries import admit, measure, score
from helpers.annex.pauses import measure_pauses
from helpers.annex.plots import figures, plot_pauses
from helpers.annex.training import train_model
from helpers.annex.variants.select import variants_problem

__all__ = ["accuracy_table", "admit", "compare", "figures", "guard_table", "markdown", "measure"]
__all__ += ["measure_pauses", "plot_pauses", "score", "show_ratios", "train_model"]
__all__ += ["variants_problem"]
