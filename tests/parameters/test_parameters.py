"""Every parameter refuses what it must, in one message that helps."""

import dataclasses
import json
import subprocess
import sys
from os.path import expanduser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.annex.variants.select import variants_problem
from helpers.models import model_problem
from helpers.parameters import ParameterError, Parameters, checked, validate

ROOT = Path(__file__).parents[2]
FIELDS = {field.name: field for field in dataclasses.fields(Parameters)}


def message(**given_values) -> str:
    with pytest.raises(ParameterError) as caught:
        checked(given_values)
    return str(caught.value)


def test_defaults_are_those_of_the_protocol_and_pass_their_own_rules():
    day = validate(**dataclasses.asdict(Parameters()))
    assert day == checked({}) == validate() == Parameters()
    assert (day.runs, day.warmup_iters, day.measure_iters, day.batch_size) == (3, 50, 500, 1)
    assert (day.max_p95_spread, day.strict, day.model) == (0.10, False, "resnet18")
    assert (day.isolation, day.compare_processes) == ("process", 6)
    with pytest.raises(dataclasses.FrozenInstanceError):
        day.runs = 5


def test_a_misspelled_name_that_papermill_injected_is_refused():
    ipython = {"In": [""], "Out": {}, "_oh": {}, "exit": object(), "checked": checked}
    assert "'run': did you mean 'runs'?" in message(**ipython, runs=4, run=5)
    assert "'run'" in message(parameters=3, run=5)  # a parameter of this name hides no other
    assert all(known in message(zzz=2) for known in FIELDS)


def test_a_readers_own_variables_are_no_parameters_once_the_day_has_begun():
    namespace = {"runs": 4, "parameters": Parameters(), "left": 2, "seen": "x"}
    assert checked(namespace).runs == 4


def test_other_rooms_say_what_is_wrong_with_a_name_but_not_of_a_default():
    problems = {"model": model_problem, "variants": variants_problem}
    for name, value in (("model", "resnet19"), ("variants", "fp17")):
        with pytest.raises(ParameterError, match=f"'{name}'.*{value}"):
            checked({name: value}, **problems)
    assert checked({"variants": "all", "model": "resnet18_cifar"}, **problems).variants == "all"
    asked = []
    for baseline in ("", "results/a"):
        checked({"baseline": baseline}, baseline=asked.append)
    assert asked == ["results/a"]


@pytest.mark.parametrize("name", ["results_dir", "data_dir", "model", "baseline"])
def test_case_17_a_leading_tilde_is_the_home_folder(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    found = checked({name: "~/a@b/x.pt"})
    assert getattr(found, name) == "/home/someone/a@b/x.pt"
    assert getattr(validate(**dataclasses.asdict(found)), name) == "/home/someone/a@b/x.pt"
    assert getattr(checked({name: "a/~/b"}), name) == "a/~/b"
    assert checked({"model": "resnet18@~/x.pt"}).model == "resnet18@/home/someone/x.pt"


ACCEPTED = {
    **{"runs": [2, 100], "measure_iters": [20], "device": ["cpu", "cuda:0", "cuda:13"]},
    **{"data_dir": ["/mnt/données et autres/cifar", ".."], "seed": [2**32 - 1]},
    "pauses_ms": ["0", "0.5, 9999", "1000,1,1"],
    "input_shape": ["16", "3x224x224"],
    **{"max_p95_spread": [0.999], "session": ["2026-11-24_a.b", "7" * 100]},
}
NAN = float("nan")
REFUSED = {
    "runs": [1, -3, 3.0, True, "3", None, [3]],
    **{"warmup_iters": [0], "measure_iters": [19, NAN], "batch_size": [0, 10_001]},
    "device": ["", "gpu", "CUDA", "cuda:-1", "cuda:01", "cuda:٣", "cpu\n", 0],
    **{"clock": ["wall"], "isolation": [False, "vm"], "data_dir": ["", "  "]},
    **{"train_epochs": [-1, 1001], "compare_processes": [2], "seed": [-1, 2**32, 1.5]},
    "pauses_ms": ["-1", "1;2", "ten", "10000", "1.", ",", "1,,2", "0 1", "inf", 5],
    "input_shape": ["", "3x", "0x3", "3x-1", "3×32×32", "3, 32", 32],
    "max_p95_spread": [0, 1, NAN, float("inf"), 10**400, True, "10%"],
    "strict": [1, "yes", None],
    "session": ["..", "a/b", "/etc", "a\\b", "C:\\x", "~", " ", "a\0", ".hidden", "-p", "été"],
}
REFUSED["session"] += ["a b", "name\n", "a" * 101, 2026]


def rows(table):
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), rows(ACCEPTED))
def test_accepts(name, value):
    assert getattr(validate(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), rows(REFUSED))
def test_refuses_and_names_parameter_value_and_type(name, value):
    text = message(**{name: value})
    for told in (f"parameter '{name}'", repr(value)[:100], f"({type(value).__name__})"):
        assert told in text
    assert not set("\n^$") & set(text)  # no regular expression


def test_what_papermill_turned_into_another_type_gets_the_remedy():
    assert "`-p strict True`" in message(strict="true")
    assert "`-r session 7`" in message(session=7)  # from `-p session 7`
    assert 'input_shape = "224"' in message(input_shape=224)  # in the notebook


def test_all_problems_are_told_at_once():
    lines = message(runs=0, clock="wall", strict="true", run=3).splitlines()
    assert [line.split("'")[1] for line in lines] == ["runs", "clock", "strict", "run"]


anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))


@given(name=st.sampled_from(list(FIELDS)), value=anything)
def test_any_value_is_either_kept_as_it_is_or_refused_with_its_name(name, value):
    try:
        parameters = validate(**{name: value})
    except ParameterError as error:
        assert name in str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert getattr(parameters, name) == (expanduser(value) if type(value) is str else value)
        assert type(getattr(parameters, name)) is type(FIELDS[name].default)


def notebook_cells(*names):
    cells = json.loads((ROOT / "J1_benchmark.ipynb").read_text("utf8"))["cells"]
    sources = {cell["id"]: "".join(cell["source"]) for cell in cells}
    return "\n".join(sources[name] for name in names)


def test_case_16_started_in_another_folder_the_check_cell_says_how_to_start(tmp_path):
    """The cells themselves, as papermill's kernel runs them in the caller's folder."""
    code = f"import sys; sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n"
    code += notebook_cells("parameters", "imports")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "`--cwd PROJECT`" in done.stderr.splitlines()[-1]


def test_the_notebooks_parameters_cell_has_every_field_with_its_default():
    namespace = {}
    exec(notebook_cells("parameters"), namespace)
    given = {name: value for name, value in namespace.items() if not name.startswith("__")}
    assert given == dataclasses.asdict(Parameters())
    assert list(given) == list(FIELDS)
