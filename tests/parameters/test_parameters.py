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
    assert checked({}) == validate() == Parameters()
    day = validate(**dataclasses.asdict(Parameters()))
    assert (day.runs, day.warmup_iters, day.measure_iters, day.batch_size) == (3, 50, 500, 1)
    assert (day.max_p95_spread, day.strict, day.model) == (0.10, False, "resnet18")


def test_a_misspelled_name_that_papermill_injected_is_refused():
    ipython = {"In": [""], "Out": {}, "_oh": {}, "exit": object(), "checked": checked}
    text = message(**ipython, runs=4, run=5)
    assert "unknown parameter 'run'; did you mean 'runs'?" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["schedule", "wait_quiet_s", "zzz", "left"])
def test_an_unknown_name_lists_the_known_ones_and_how_a_variable_goes(name):
    text = message(**{name: 2})
    assert f"`del {name}`" in text
    assert all(known in text for known in FIELDS)


def test_a_parameter_called_parameters_hides_no_other():
    assert "unknown parameter 'run'" in message(parameters=3, run=5)


def test_a_readers_own_variables_are_no_parameters_once_the_day_has_begun():
    namespace = {"runs": 4, "parameters": Parameters(), "left": 2, "seen": "x"}
    assert checked(namespace).runs == 4


def test_other_rooms_say_what_is_wrong_with_a_name_on_a_line_of_its_own():
    problems = {"model": model_problem, "variants": variants_problem}
    given = {"model": "resnet19", "variants": "fp17", "runs": 1}
    with pytest.raises(ParameterError) as caught:
        checked(given, **problems)
    lines = str(caught.value).splitlines()
    assert [line.split("'")[1] for line in lines] == ["model", "variants", "runs"]
    assert "'resnet19'" in lines[0]
    assert "fp17" in lines[1]
    assert checked({"variants": "all", "model": "resnet18_cifar"}, **problems).variants == "all"


def test_other_rooms_are_asked_about_no_default_and_nothing_of_a_wrong_type():
    asked = []
    checked({"baseline": ""}, baseline=asked.append)
    with pytest.raises(ParameterError):
        checked({"baseline": 3}, baseline=asked.append)
    checked({"baseline": "results/a"}, baseline=asked.append)
    assert asked == ["results/a"]


@pytest.mark.parametrize("name", ["results_dir", "data_dir", "model", "baseline"])
def test_case_17_a_leading_tilde_is_the_home_folder(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    found = checked({name: "~/a@b/x.pt"})
    assert getattr(found, name) == "/home/someone/a@b/x.pt"
    assert getattr(validate(**dataclasses.asdict(found)), name) == "/home/someone/a@b/x.pt"
    assert "home" in message(**{name: "~nobody-of-this-name/x"})
    assert getattr(checked({name: "a/~/b"}), name) == "a/~/b"


def test_case_17_also_behind_a_models_name(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert checked({"model": "resnet18@~/x.pt"}).model == "resnet18@/home/someone/x.pt"


def test_parameters_cannot_be_changed_after_the_check():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Parameters().runs = 5


ACCEPTED = [
    ("runs", 2),
    ("runs", 100),
    ("warmup_iters", 1),
    ("measure_iters", 20),
    ("batch_size", 10_000),
    ("device", "cpu"),
    ("device", "cuda"),
    ("device", "cuda:0"),
    ("device", "cuda:13"),
    ("clock", "host"),
    ("clock", "gpu"),
    ("isolation", "process"),
    ("dataset", "synthetic"),
    ("data_dir", "/mnt/données et autres/cifar"),
    ("results_dir", ".."),
    ("model", "mobilenet_v3_small"),
    ("model", "resnet18_cifar"),
    ("model", "my_package.nets:tiny"),
    ("train_epochs", 40),
    ("variants", "all"),
    ("variants", "fp16+channels_last+cudagraph, bf16"),
    ("baseline", "results/2026-11-24_a"),
    ("max_regression", 0.02),
    ("eval_images", 1),
    ("seed", 2**32 - 1),
    ("max_p95_spread", 0.999),
    ("strict", True),
    ("session", "2026-11-24_a.b"),
    ("session", "7" * 100),
]


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_accepts(name, value):
    assert getattr(validate(**{name: value}), name) == value


REFUSED = [
    ("runs", 1),
    ("runs", 0),
    ("runs", -3),
    ("runs", 3.0),
    ("runs", True),
    ("runs", "3"),
    ("runs", None),
    ("runs", [3]),
    ("warmup_iters", 0),
    ("warmup_iters", -1),
    ("measure_iters", 19),
    ("measure_iters", float("nan")),
    ("batch_size", 0),
    ("batch_size", 10_001),
    ("device", ""),
    ("device", "gpu"),
    ("device", "CUDA"),
    ("device", "cuda:"),
    ("device", "cuda:-1"),
    ("device", "cuda:01"),
    ("device", "cuda:٣"),
    ("device", "cpu\n"),
    ("device", 0),
    ("clock", "wall"),
    ("isolation", False),
    ("dataset", "CIFAR10"),
    ("data_dir", ""),
    ("data_dir", "  "),
    ("data_dir", "a\0b"),
    ("results_dir", None),
    ("model", ""),
    ("model", ["resnet18"]),
    ("train_epochs", -1),
    ("train_epochs", 1001),
    ("variants", ["fp16"]),
    ("baseline", 3),
    ("max_regression", 0),
    ("max_regression", float("nan")),
    ("eval_images", 0),
    ("eval_images", 10_001),
    ("seed", -1),
    ("seed", 2**32),
    ("seed", 1.5),
    ("max_p95_spread", 0),
    ("max_p95_spread", 1),
    ("max_p95_spread", 10),
    ("max_p95_spread", -0.1),
    ("max_p95_spread", float("nan")),
    ("max_p95_spread", float("inf")),
    ("max_p95_spread", 10**400),
    ("max_p95_spread", True),
    ("max_p95_spread", "10%"),
    ("strict", 1),
    ("strict", "yes"),
    ("strict", None),
    ("session", ".."),
    ("session", "../elsewhere"),
    ("session", "a/b"),
    ("session", "a\\b"),
    ("session", ".hidden"),
    ("session", "-p"),
    ("session", "été"),
    ("session", "two words"),
    ("session", "name\n"),
    ("session", "a" * 101),
    ("session", 2026),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_refuses_and_names_parameter_value_type_and_what_is_allowed(name, value):
    text = message(**{name: value})
    assert f"parameter '{name}'" in text
    assert repr(value)[:100] in text
    assert f"({type(value).__name__})" in text
    assert "allowed: " in text
    assert "\n" not in text


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "false", "False"])
def test_text_given_to_a_switch_gets_the_remedy(value):
    assert f"`-p strict {value.capitalize()}`" in message(strict=value)


def test_digits_given_to_a_text_get_the_remedy():
    # papermill turns `-p session 007` into the integer 7
    assert "`-r session VALUE`" in message(session=7)


def test_all_problems_are_told_at_once():
    lines = message(runs=0, clock="wall", strict="true").splitlines()
    assert [line.split("'")[1] for line in lines] == ["runs", "clock", "strict"]


def test_huge_values_do_not_flood_the_message():
    assert len(message(session="x" * 100_000)) < 500


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
)


@given(name=st.sampled_from(list(FIELDS)), value=anything)
def test_any_value_is_either_kept_as_it_is_or_refused_with_its_name(name, value):
    try:
        parameters = validate(**{name: value})
    except ParameterError as error:
        assert name in str(error)  # noqa: PT017 - both outcomes are right
    else:
        assert getattr(parameters, name) == (expanduser(value) if type(value) is str else value)
        assert type(getattr(parameters, name)) is type(FIELDS[name].default)


def test_an_uncaught_error_shows_its_message_last():
    """The notebook's reader and the terminal's see the same last line."""
    code = "from helpers.parameters import validate; validate(strict='true')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "`-p strict True`" in done.stderr.splitlines()[-1]


def test_case_16_started_in_another_folder_the_check_cell_says_how_to_start(tmp_path):
    """The cells themselves, as papermill's kernel runs them in the caller's folder."""
    cells = {
        c["id"]: c for c in json.loads((ROOT / "J1_benchmark.ipynb").read_text("utf8"))["cells"]
    }
    code = "\n".join("".join(cells[name]["source"]) for name in ("parameters", "validate"))
    code = (
        f"import sys; sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n{code}\nprint(runs)"
    )

    def run(folder):
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    elsewhere = run(tmp_path)
    assert elsewhere.returncode == 1
    assert "`--cwd PROJECT`" in elsewhere.stderr.splitlines()[-1]
    assert run(ROOT).stdout == "3\n"


def test_the_notebooks_parameters_cell_has_every_field_with_its_default():
    cells = {
        c["id"]: c for c in json.loads((ROOT / "J1_benchmark.ipynb").read_text("utf8"))["cells"]
    }
    namespace = {}
    exec("".join(cells["parameters"]["source"]), namespace)
    given = {name: value for name, value in namespace.items() if not name.startswith("__")}
    assert given == dataclasses.asdict(Parameters())
    assert list(given) == list(FIELDS)
