"""What looks around blocks say: one rule after the other, and who on the GPU is a stranger."""

import os
from dataclasses import replace

import numpy as np
import pynvml
import pytest
import torch
from fakes import make_run
from looks_fake import CLEAN_GPU, PROCESS, clean_samples, look
from nvml_fake import ME, OTHER

from helpers.bench_latency import benchmark_latency
from helpers.validation.interference import GPU_RULES, HOST_RULES, tags


def run_of(gpus=(CLEAN_GPU,) * 2, gpu_ms=None, host=None, **changes):
    """A run on a GPU of one block a second; `host` changes the counters of its last look."""
    gpu_ms = clean_samples(100 * (len(gpus) - 1)) if gpu_ms is None else gpu_ms
    looks = [look(float(at), gpu) for at, gpu in enumerate(gpus)]
    looks[-1] = look(len(gpus) - 1.0, gpus[-1], **(host or {}))
    given = {"process": PROCESS, "device": "cuda:0", "looks": tuple(looks)} | changes
    return make_run(2 * np.abs(gpu_ms), gpu_ms, **given)


def seen(gpu=CLEAN_GPU, **changes):
    """What was seen in a run of one block after which the GPU read `gpu`."""
    return tags([run_of((CLEAN_GPU, gpu), **changes)])[0]


def codes(gpu=CLEAN_GPU, **changes):
    return set(seen(gpu, **changes).codes)


FOREIGN = replace(CLEAN_GPU, processes=frozenset({ME, OTHER}), shares=((ME, 60), (OTHER, 19)))
FAULTS = {
    "foreign_gpu_process": {"gpu": FOREIGN},
    "gpu_clock_drop": {"gpu": replace(CLEAN_GPU, sm_mhz=1700)},
    "throttle": {"gpu": replace(CLEAN_GPU, reasons=pynvml.nvmlClocksEventReasonSwPowerCap)},
    "gpu_disturbed": {"gpu_ms": np.where(np.arange(100) % 10 == 0, 3.0, clean_samples())},
    "cpu_load": {"host": {"busy_s": 3.9}},
    "steal": {"host": {"steal_s": {1: 0.2}, "core": 1}},
    "preempted": {"host": {"preemptions": 150, "thread_s": 0.5}},
}


@pytest.mark.parametrize(("code", "changes"), FAULTS.items())
def test_each_fault_raises_its_own_tag_and_no_other(code, changes):
    assert codes(**changes) == {code}


def test_a_block_slower_than_the_fastest_of_its_run():
    samples = np.concatenate([clean_samples(), 1.1 * clean_samples()])
    (found,) = tags([run_of((CLEAN_GPU,) * 3, samples)])
    assert [[tag.code for tag in block] for block in found.blocks] == [[], ["gpu_shift"]]


def test_a_clean_block_has_no_tag_and_every_rule_has_a_fault_here():
    assert (seen().codes, seen().unseen) == ((), ())
    assert FAULTS.keys() | {"gpu_shift"} == GPU_RULES.keys() | HOST_RULES.keys()


def test_states_that_are_no_disturbance_are_not_tagged():
    idle = pynvml.nvmlClocksEventReasonGpuIdle
    user = pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    assert codes(replace(CLEAN_GPU, reasons=idle | user)) == set()
    assert codes(host={"preemptions": 40, "thread_s": 0.99}) == set()  # they cost no time
    small = 0.020 + 0.005 * (np.arange(100) % 12 == 0)  # the clock's own microseconds
    assert codes(gpu_ms=small) == set()


def test_time_stolen_from_other_cores_is_no_matter_but_from_one_we_were_on_it_is():
    stolen = {0: 0.9, 1: 0.0, 2: 0.2, 3: 0.9}
    assert codes(host={"steal_s": stolen}) == set()
    assert codes(host={"steal_s": stolen, "core": 2}) == {"steal"}  # we have moved there


@pytest.mark.parametrize(
    ("changes", "unseen"),
    [
        ({"host": {"core": 17}}, {"steal"}),
        ({"host": {"core": None}}, {"steal"}),
        ({"host": {"busy_s": 0.0}}, {"cpu_load"}),  # a sandbox: we were computing
        ({"gpu": replace(CLEAN_GPU, sm_mhz="fast")}, {"gpu_clock_drop"}),  # of an unknown form
        ({"gpu": replace(CLEAN_GPU, processes=None, shares=None)}, {"foreign_gpu_process"}),
        ({"gpus": (None, None)}, {"foreign_gpu_process", "gpu_clock_drop", "throttle"}),
        ({"gpu_ms": clean_samples(10)}, {"gpu_disturbed", "gpu_shift"}),
    ],
)
def test_what_cannot_be_read_is_not_observable_rather_than_clean(changes, unseen):
    gpus = changes.pop("gpus", (CLEAN_GPU, changes.pop("gpu", CLEAN_GPU)))
    if gpus[1] and gpus[1].sm_mhz == "fast":
        gpus = (gpus[1], gpus[1])
    (found,) = tags([run_of(gpus, **changes)])
    assert (found.codes, set(found.unseen)) == ((), unseen)


def test_shares_that_never_come_although_we_compute_are_not_observable():
    silent = replace(CLEAN_GPU, shares=())
    assert tags([run_of((silent,) * 3)])[0].unseen == ("foreign_gpu_process",)
    assert seen(silent).unseen == ()  # they came once


def test_on_a_cpu_only_the_host_is_judged():
    (found,) = tags([run_of((None, None), device="cpu", host={"preemptions": 9, "thread_s": 0.5})])
    assert (found.codes, found.unseen) == (("preempted",), ())


def test_the_tag_is_on_its_block_with_its_numbers():
    (found,) = tags([run_of((CLEAN_GPU, CLEAN_GPU, FOREIGN, CLEAN_GPU))])
    assert [len(block) for block in found.blocks] == [0, 1, 0]
    assert found.blocks[1][0].values == {"share": pytest.approx(0.19), "pids": [OTHER]}


def test_a_clock_lost_between_two_runs_is_seen_in_the_second():
    slow = replace(CLEAN_GPU, sm_mhz=1600)
    first, second = tags([run_of(), run_of((slow, slow))])
    assert (first.codes, second.codes) == ((), ("gpu_clock_drop",))


def capped(sm_mhz=1400, reasons=4, **changes):
    return replace(CLEAN_GPU, sm_mhz=sm_mhz, reasons=reasons, **changes)


CAPS = {  # GPU at each of four looks, flags of the run, whether the cap is a condition
    "steady": ([capped(power_limited_s=3.0 + i) for i in range(4)], set(), True),
    "within NVML's steps": ([capped(), capped(1395), capped(1410), capped()], set(), True),
    "begins in the run": ([capped(reasons=0), *[capped()] * 3], {"throttle"}, False),
    "falls": ([*[capped()] * 2, *[capped(1200)] * 2], {"gpu_clock_drop", "throttle"}, False),
    "heat beside it": ([capped(), capped(reasons=4 | 0x20), *[capped()] * 2], {"throttle"}, True),
    "heat counted": ([capped(thermal_limited_s=i / 5) for i in range(4)], {"throttle"}, True),
}


@pytest.mark.parametrize("case", CAPS)
def test_a_steady_power_cap_is_a_condition_and_no_throttle(case):
    gpus, expected, steady = CAPS[case]
    (found,) = tags([run_of(gpus)])
    assert (set(found.codes), found.steady_power_cap) == (expected, steady)


# --- who is foreign


PIDS = {  # shares, processes listed, our pids, spawned: share of the others, idle ones
    "one is only present": (((ME, 70),), {ME, OTHER}, {ME}, False, 0.0, 1),
    "one computes while we do not": (((OTHER, 40),), {ME, OTHER}, {ME}, False, 0.40, 0),
    "samples are averaged": (((ME, 5), (OTHER, 10), (OTHER, 30)), {ME, OTHER}, {ME}, False, 0.2, 0),
    "another namespace, alone": (((9001, 72),), {9001}, {ME}, False, 0.0, 0),
    "the two lists disagree": (((9001, 72),), {ME}, {ME}, False, 0.0, 0),
    "another namespace, two": (((9001, 60), (9002, 25)), {9001, 9002}, {ME}, False, 0.25, 0),
    "the host's pid is ours": (((9001, 72),), {9001, OTHER}, {ME, 9001}, False, 0.0, 1),
    "who spawned us": (((ME, 70),), {ME, 50}, {ME, 50}, True, 0.0, 0),
    "who spawned us, hidden": (((9001, 70),), {9001, 9002}, {ME}, True, 0.0, 0),
}


@pytest.mark.parametrize("case", PIDS)
def test_who_is_foreign(case):
    shares, listed, own, spawned, foreign, idle = PIDS[case]
    gpu = replace(CLEAN_GPU, shares=shares, processes=frozenset(listed))
    process = replace(PROCESS, own=frozenset(own), spawned=spawned)
    (found,) = tags([run_of((gpu, gpu), process=process)])
    assert sum(tag.value for tag in found.blocks[0]) == pytest.approx(foreign)
    assert found.idle_foreigners == idle


@pytest.mark.gpu
def test_on_a_real_gpu_we_are_not_our_own_foreigner():
    model = torch.nn.Linear(256, 256).cuda()
    run = benchmark_latency(model, [torch.zeros(1, 256)], 50, 500)
    (found,) = tags([run])
    assert len(found.blocks) == 5
    assert all(look.gpu.sm_mhz for look in run.looks)
    pids = {pid for block in found.blocks for tag in block for pid in tag.values.get("pids", [])}
    assert os.getpid() not in pids
