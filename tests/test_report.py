import json

import pytest
from fakes import make_result

from helpers.parameters import validate
from helpers.report import session_text
from helpers.results import ResultsError, open_session
from helpers.rows import run_row, run_samples

MACHINE = {"gpu": None, "software": {"torch": "2.14.1"}, "cuda": {"torch_cuda": None}}


@pytest.fixture
def session(tmp_path):
    recording = open_session(tmp_path / "results", "mine")
    result = make_result([1.0, 1.1, 1.2])
    row = run_row(
        result,
        run=1,
        parameters=validate(),
        environment=MACHINE,
        dataset="synthetic",
        accuracy=0.1,
        eval_images=100,
        session="mine",
    )
    recording.add_run(row, run_samples(result))
    return recording


def test_runs_verdict_and_files_are_printed(session):
    session.save_json("verdict", {"sentences": ["ACCEPTÉ — tout va bien"]})
    session.complete()
    text = session_text(session.folder)
    for expected in ("synthetic", "lat_p95", "ACCEPTÉ — tout va bien", "run_1.npz"):
        assert expected in text
    assert str(session.folder) in text


def test_an_unfinished_session_is_never_reported_as_finished(session):
    session.save_json("verdict", {"sentences": ["ACCEPTÉ"]})
    with pytest.raises(ResultsError, match="'running', not complete"):
        session_text(session.folder)


def test_a_folder_without_session_is_named(tmp_path):
    with pytest.raises(ResultsError, match="nothing"):
        session_text(tmp_path / "nothing")


def test_a_damaged_state_is_named(session):
    (session.folder / "session.json").write_text(json.dumps([]))
    with pytest.raises(ResultsError, match="no finished session"):
        session_text(session.folder)
