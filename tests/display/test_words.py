"""Every code that the day can raise has its French, which fits the values that come with it."""

import ast
import inspect
import string

import pytest

from helpers import bench_latency
from helpers.clocks import timing
from helpers.display import words
from helpers.display.french import NOUNS
from helpers.results.table import CHOICES
from helpers.validation import causes, interference


def test_every_tag_dataset_and_reason_for_no_gpu_clock_has_its_french():
    assert words.DATASETS.keys() == CHOICES["dataset"]
    rules = interference.GPU_RULES | interference.HOST_RULES
    assert words.TAGS.keys() == rules.keys() <= words.LABELS.keys() & set().union(*words.TO_DO)
    assert set(interference.HARMFUL_REASONS.values()) < NOUNS.keys()
    reasons = {bench_latency.NO_GPU, bench_latency.NOT_ASKED, bench_latency.NO_KERNELS}
    reasons |= {timing.LAUNCHES_BLOCK, timing.QUEUE_TOO_SHORT, timing.WAITS_INSIDE}
    assert words.NO_GPU_CLOCK.keys() == reasons | {timing.HOST_TOO_SLOW, timing.NOT_QUEUEABLE}


@pytest.mark.parametrize("table", [words.TAGS, words.CAUSES, words.BOUNDS])
def test_codes_and_fields_are_those_that_validation_gives(table):
    sources = [ast.parse(inspect.getsource(module)) for module in (causes, interference)]
    nodes = [node for source in sources for node in ast.walk(source)]
    given = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert table.keys() <= given
    for text in table.values():
        assert {name for _, name, *_ in string.Formatter().parse(text) if name} <= given
