"""Campaigns on Dask: embedded cluster and existing one, who may connect, what sessions see."""

import json

import pytest
import yaml

from helpers.after.campaign.merge import COMPARISON, FAILURES, TABLE
from tests.campaign.dask_processes import Cluster, free_port
from tests.campaign.stand_in import write_notebook

pytest.importorskip("distributed", reason="needs Dask: run by `make test-campaign`")

import dask
import filelock
from distributed import Client, Security

from helpers.after.campaign import runner

TIMEOUTS = {"distributed.comm.timeouts.connect": "2s"}


@pytest.fixture
def run_plan(tmp_path):
    notebook = str(write_notebook(tmp_path / "stand_in.ipynb"))

    def run(scheduler=None, **content):
        file = tmp_path / "plan.yml"
        file.write_text(yaml.safe_dump(content))
        return runner.run_campaign(file, scheduler, tmp_path, notebook)

    return run


def certificates(folder):
    """The three files of somebody's TLS cluster."""
    folder.mkdir()
    made = Security.temporary()
    texts = {"ca_file": made.tls_ca_file, "cert": made.tls_client_cert, "key": made.tls_client_key}
    for file, text in texts.items():
        (folder / file).write_text(text)
    return {file: folder / file for file in texts}


def test_attack_A5_the_embedded_cluster_pins_a_worker_per_gpu_and_keeps_a_users_threads(
    run_plan, monkeypatch, capsys
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")  # the stand-in asks CUDA nothing
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the user's own, and Dask's own value
    plan = {"parameters": {"seed": [0, 1]}, "repetitions": 2, "resources": {"GPU": 1, "H100": 1}}
    outcome = run_plan(**plan)
    assert (outcome.rows["session"].nunique(), outcome.failures) == (4, {})
    assert set(outcome.rows["torch_threads"]) == {1}  # OMP_NUM_THREADS in the kernel
    seen = [json.loads(path.read_text()) for path in outcome.folder.glob("s*/campaign.json")]
    assert {tuple(one["visible_gpus"]) for one in seen} == {("GPU-a",), ("GPU-b",)}
    names = {path.name for path in outcome.folder.iterdir()}
    assert {TABLE, FAILURES, COMPARISON} <= names
    assert "Tableau de bord de Dask : http" in capsys.readouterr().out

    def down(*_):
        raise ConnectionError("no cluster today")

    monkeypatch.setattr(runner, "connected", down)  # would be called to measure anything
    (outcome.folder / ".campaign.csv.1.tmp").touch()  # as left by a campaign that was killed
    (outcome.folder / ".s1.1.tmp" / "deep").mkdir(parents=True)
    assert run_plan(**plan).rows.equals(outcome.rows)
    assert "4 sessions, dont 4 déjà finies" in capsys.readouterr().out
    assert not list(outcome.folder.glob(".*.tmp"))
    # attack A10: one damaged session is measured again, and told where that cannot be
    (outcome.folder / "s0001-r0001" / "results.csv").write_bytes(b"\xff")
    with pytest.raises(ConnectionError, match="no cluster today"):
        run_plan(**plan)
    (failure,) = json.loads((outcome.folder / FAILURES).read_text())
    assert failure["session"] == "s0001-r0001"
    assert (outcome.folder / TABLE).read_text().count("\n") == 1 + 3 * 2


def test_attack_A6_nobody_else_connects_to_the_embedded_cluster(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with dask.config.set(TIMEOUTS), runner.connected(None, {"GPU": 1}) as client:
        (worker,) = client.scheduler_info()["workers"]
        for address in (client.scheduler.address, worker):
            plain = address.replace("tls://", "tcp://")
            for target, security in ((plain, None), (address, Security.temporary())):
                with pytest.raises(OSError, match=r"TCP|certificate"):
                    Client(target, security=security, timeout=2, set_as_default=False)
        Client(client.scheduler.address, security=client.security, set_as_default=False).close()


def configured(tls):
    """Dask's own configuration of a client with these three files."""
    names = {"ca_file": "ca-file", "cert": "client.cert", "key": "client.key"}
    return dask.config.set({f"distributed.comm.tls.{names[n]}": str(p) for n, p in tls.items()})


def test_attack_A7_a_tls_scheduler_is_used_as_dask_is_configured(run_plan, tmp_path):
    own, others = certificates(tmp_path / "own"), certificates(tmp_path / "others")
    plan = {"parameters": {"seed": [0]}}
    threads = {"OMP_NUM_THREADS": "1"}  # attack A5: set by whoever started the workers
    with Cluster(tmp_path / "dask", 1, own, **threads) as running, dask.config.set(TIMEOUTS):
        for tls in (others, {}, {**own, "key": tmp_path / "no"}):
            with configured(tls), pytest.raises((OSError, TypeError, RuntimeError, ValueError)):
                run_plan(running.address, **plan)
        with configured(own):
            outcome = run_plan(running.address, **plan)
    assert (len(outcome.rows), outcome.failures) == (2, {})
    assert set(outcome.rows["torch_threads"]) == {1}


def test_attack_A5_a_nannys_own_threads_are_undone(run_plan, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Cluster(tmp_path / "dask", 2) as running:
        rows = run_plan(running.address, parameters={"seed": [0, 1]}).rows
    assert rows["session"].nunique() == 2
    assert set(rows["torch_threads"]) == {0}  # the nanny's would be 1


@pytest.mark.parametrize(
    ("plan", "scheduler", "told"),
    [
        ("repetitions: 0", [], "plan.yml.*repetitions"),
        ("", ["--scheduler", "nothing://"], "nothing"),
        ("", ["--scheduler", f"tcp://127.0.0.1:{free_port()}"], "127.0.0.1"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, plan, scheduler, told):
    (tmp_path / "plan.yml").write_text(plan or "repetitions: 1")
    folder = ["--results-dir", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["campaign", str(tmp_path / "plan.yml"), *folder, *scheduler])
    with dask.config.set(TIMEOUTS), pytest.raises(SystemExit, match=f"(?s)error: .*{told}"):
        runner.main()


def test_a_second_process_is_refused(run_plan, monkeypatch):
    monkeypatch.setattr(runner, "connected", lambda *_: run_plan(repetitions=1))  # meanwhile
    with pytest.raises(filelock.Timeout):
        run_plan(repetitions=1)
