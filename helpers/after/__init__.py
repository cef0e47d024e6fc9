"""Step 8: what is done with finished sessions."""

from helpers.after.baseline import baseline_sentences as baseline_sentences
from helpers.after.baseline import check_baseline as check_baseline
from helpers.after.baseline import compare_baseline as compare_baseline
from helpers.after.baseline import enforce_baseline as enforce_baseline
