"""Every code that the day can raise has its French, which fits the values that come with it."""

import ast
import inspect
import string

import pytest
from displayed import CPU_LOAD, THROTTLE

from helpers import bench_latency, clocks
from helpers.display import words
from helpers.validation import causes, interference
from helpers.validation.interference import GPU_RULES, HOST_RULES, Tag


def test_every_tag_and_flag_has_a_label():
    assert words.TAG_LABELS.keys() == words.TAGS.keys() == (GPU_RULES | HOST_RULES).keys()
    assert words.TAG_LABELS.keys() < words.FLAG_LABELS.keys()


def test_every_reason_for_no_gpu_clock_has_its_french():
    reasons = {bench_latency.NO_GPU, bench_latency.NOT_ASKED, bench_latency.NO_KERNELS}
    reasons |= {clocks.LAUNCHES_BLOCK, clocks.QUEUE_TOO_SHORT}
    assert words.NO_GPU_CLOCK.keys() == reasons | {clocks.WAITS_INSIDE, clocks.HOST_TOO_SLOW}


@pytest.mark.parametrize("table", [words.TAGS, words.CAUSES, words.BOUNDS])
def test_the_fields_of_a_sentence_are_values_that_are_given(table):
    sources = [ast.parse(inspect.getsource(module)) for module in (causes, interference)]
    nodes = [node for source in sources for node in ast.walk(source)]
    given = {node.value for node in nodes if isinstance(node, ast.Constant)}
    for sentence in table.values():
        for text in (sentence,) if isinstance(sentence, str) else sentence:
            fields = {name for _, name, *_ in string.Formatter().parse(text) if name}
            assert fields <= given


def test_the_harmful_reasons_are_words():
    assert set(interference.HARMFUL_REASONS.values()) < words.NOUNS.keys()
    told = words.said(words.TAGS, "throttle", THROTTLE.values)
    assert "limite de puissance" in told
    assert "power_cap" not in told


@pytest.mark.parametrize(
    ("pids", "told"), [([41, 42], "processus étranger 41, 42"), ([], "PID masqués")]
)
def test_names_that_are_hidden_have_a_sentence_of_their_own(pids, told):
    tag = Tag("foreign_gpu_process", 0.3, 0.05, {"share": 0.3, "pids": pids})
    assert told in words.said(words.TAGS, tag.code, tag.values)


def test_an_unknown_code_ends_nothing():
    assert words.said(words.TAGS, "new_rule", CPU_LOAD.values) == "new_rule"
