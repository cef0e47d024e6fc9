"""What a worker does, without Dask: the notebook through papermill, its folder as bytes."""

import json
from dataclasses import replace

import pytest

from helpers.after.campaign import session as campaign_session
from helpers.after.campaign.merge import is_finished, land
from helpers.after.campaign.plan import make_plan
from helpers.after.campaign.session import FACTS, SessionError, measure
from tests.campaign.stand_in import FAILING_SEED, write_notebook


@pytest.fixture
def task_of(tmp_path):
    notebook = str(write_notebook(tmp_path / "stand_in.ipynb"))

    def task(**parameters):
        plan = make_plan({"parameters": parameters, "notebook": notebook})
        return next(plan.tasks())[0]

    return task


def test_a_session_is_measured_and_its_folder_comes_back_whole(task_of, tmp_path):
    task, scratch = task_of(seed=4), tmp_path / "scratch"
    scratch.mkdir()
    files = measure(task, scratch)
    assert {"results.csv", "run_1.npz", "session.json", "stand_in.ipynb", FACTS} <= set(files)
    assert not any(name.startswith(".") for name in files)
    facts = json.loads(files[FACTS])
    assert facts["parameters"]["seed"] == 4
    assert facts["finished_s"] > facts["started_s"]
    campaign = tmp_path / "campaign"
    campaign.mkdir()
    land(campaign, task.session, files)
    assert is_finished(campaign / task.session)


def test_a_notebook_that_fails_is_told_by_its_first_lines(task_of, tmp_path):
    with pytest.raises(SessionError, match=r"cell \[\d\]: RuntimeError: no GPU likes seed 13"):
        measure(task_of(seed=FAILING_SEED), tmp_path)


def test_other_code_than_the_plans_is_refused(task_of, tmp_path):
    with pytest.raises(SessionError, match="not the one that the plan was read with"):
        measure(replace(task_of(), code="other"), tmp_path)


def test_a_worker_that_sees_two_gpus_is_refused(task_of, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(SessionError, match=r"sees 2 GPUs.*one worker per GPU"):
        measure(task_of(), tmp_path)


def test_a_notebook_that_leaves_no_complete_session_is_a_failure(task_of, tmp_path, monkeypatch):
    def nothing(_, executed, *args, **kwargs):
        executed.write_text("{}")

    monkeypatch.setattr(campaign_session.papermill, "execute_notebook", nothing)
    with pytest.raises(SessionError, match="holds no finished session"):
        measure(task_of(), tmp_path)


def test_a_kernel_that_dies_is_a_failure_that_travels_as_text(task_of, tmp_path, monkeypatch):
    def dies(*args, **kwargs):
        raise RuntimeError("Kernel died\nsome more")

    monkeypatch.setattr(campaign_session.papermill, "execute_notebook", dies)
    with pytest.raises(SessionError, match=r"RuntimeError: Kernel died \| some more"):
        measure(task_of(), tmp_path)
