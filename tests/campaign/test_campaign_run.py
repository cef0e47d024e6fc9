"""Campaigns on Dask: embedded cluster and existing one, pinned workers, hosts alone or shared."""

import json
import os

import pytest
import yaml

from helpers.after.campaign.merge import FAILURES, TABLE
from helpers.after.campaign.plan import PlanError
from tests.campaign.dask_processes import cluster, free_port
from tests.campaign.stand_in import write_notebook

pytest.importorskip("distributed", reason="needs Dask: run by `make test-campaign`")

from helpers.after.campaign import runner as campaign
from helpers.after.campaign.worker import _undo_settings_of_dask


@pytest.fixture
def plan_of(tmp_path):
    notebook = str(write_notebook(tmp_path / "stand_in.ipynb"))

    def plan(**content):
        file = tmp_path / "plan.yml"
        file.write_text(yaml.safe_dump({"notebook": notebook, **content}))
        return file

    return plan


def facts_of(outcome):
    return {
        path.parent.name: json.loads(path.read_text())
        for path in outcome.folder.glob("s*/campaign.json")
    }


def test_the_embedded_cluster_pins_one_worker_per_gpu_and_repeats_nothing(
    plan_of, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")  # the stand-in asks CUDA nothing
    kinds = [{"GPU": 1, "GPU0": 1}, {"GPU": 1, "GPU1": 1}]
    plan = plan_of(parameters={"seed": [0, 1]}, resources=kinds)
    outcome = campaign.run_campaign(plan, results_dir=tmp_path)
    assert (outcome.finished, outcome.planned, outcome.failures) == (4, 4, {})
    seen = {name: facts["visible_gpus"] for name, facts in facts_of(outcome).items()}
    assert seen == {
        f"s000{number}-r0001-GPU{index}": [gpu]
        for number in (1, 2)
        for index, gpu in enumerate(("GPU-a", "GPU-b"))
    }
    names = {path.name for path in outcome.folder.iterdir()}
    assert {TABLE, FAILURES, "comparaison.csv", "comparaison.png"} <= names
    assert "Tableau de bord de Dask : http://127.0.0.1" in capsys.readouterr().out
    monkeypatch.setattr(campaign, "connected", None)  # would be called to measure anything
    again = campaign.run_campaign(plan, results_dir=tmp_path)
    assert again.rows.equals(outcome.rows)
    assert "4 sessions, dont 4 déjà finies" in capsys.readouterr().out


def test_sessions_that_share_a_host_say_so_or_take_turns(plan_of, tmp_path):
    with cluster(tmp_path / "dask", 2, STAND_IN_S="1.5") as running:
        outcomes = {
            exclusive: campaign.run_campaign(
                plan_of(parameters={"seed": [0, 1, 2, 3]}, exclusive_host=exclusive),
                running.address,
                tmp_path,
            )
            for exclusive in (False, True)
        }
    assert outcomes[False].rows["host_shared"].any()
    assert not outcomes[True].rows["host_shared"].any()
    assert outcomes[True].finished == 4


def test_what_no_local_worker_offers_is_refused(plan_of, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(PlanError, match=r"no worker of this machine offers .*H100"):
        campaign.run_campaign(plan_of(resources={"GPU": 1, "H100": 1}), results_dir=tmp_path)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "nothing://"])
def test_a_scheduler_that_does_not_answer_is_named(plan_of, tmp_path, address):
    import dask

    address = address.format(port=free_port())
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(campaign.CampaignError, match="no Dask scheduler answers"),
    ):
        campaign.run_campaign(plan_of(), address, tmp_path)


def test_the_command_says_what_is_wrong(plan_of, tmp_path, monkeypatch):
    arguments = ["campaign", str(plan_of(repetitions=0)), "--results-dir", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match=r"error: .*plan.yml: repetitions: got 0"):
        campaign.main()


def test_the_notebook_runs_without_the_settings_that_dask_gives_its_workers(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # Dask's own
    monkeypatch.setenv("MKL_NUM_THREADS", "7")  # somebody's
    _undo_settings_of_dask()
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["MKL_NUM_THREADS"] == "7"
