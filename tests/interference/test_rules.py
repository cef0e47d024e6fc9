"""One rule after the other on invented looks, and who on the GPU is a stranger."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pynvml
import pytest
from looks_fake import CLEAN_GPU, RULES, block, clean_samples, codes
from nvml_fake import ME, OTHER

from helpers.environment import readings
from helpers.environment.facts import Reader
from helpers.environment.readings import (
    own_pids,
    read_host,
)
from helpers.validation.interference.evidence import (
    Levels,
    apply_rules,
    foreign_shares,
    idle_foreigners,
)
from helpers.validation.interference.rules import GPU_RULES, HOST_ONLY, HOST_RULES


def test_a_clean_block_has_no_tag_and_every_rule_has_measured():
    values, tags, unseen = apply_rules(block(), RULES)
    assert tags == ()
    assert unseen == ()
    assert values.keys() == RULES.keys()


GPU_FAULTS = {
    "foreign_gpu_process": {
        "gpu": replace(CLEAN_GPU, processes=frozenset({ME, OTHER}), shares=((ME, 60), (OTHER, 19)))
    },
    "gpu_clock_drop": {"gpu": replace(CLEAN_GPU, sm_mhz=1700)},
    "throttle": {"gpu": replace(CLEAN_GPU, reasons=pynvml.nvmlClocksEventReasonSwPowerCap)},
    "gpu_disturbed": {"gpu_ms": np.where(np.arange(100) % 10 == 0, 3.0, clean_samples())},
    "gpu_shift": {"gpu_ms": 1.1 * clean_samples()},
}
HOST_FAULTS = {
    "cpu_load": {"host": {"busy_s": 3.9}},
    "steal": {"host": {"steal_s": {1: 0.2}}},
    "preempted": {"host": {"preemptions": 150, "thread_s": 0.5}},
}


@pytest.mark.parametrize(("code", "changes"), (GPU_FAULTS | HOST_FAULTS).items())
def test_each_fault_raises_its_own_tag_and_no_other(code, changes):
    assert codes(block(**changes)) == {code}


def test_every_rule_has_a_fault_here():
    assert GPU_FAULTS.keys() == GPU_RULES.keys()
    assert HOST_FAULTS.keys() == HOST_RULES.keys()
    assert HOST_RULES.keys() == HOST_ONLY


def test_states_that_are_no_disturbance_are_not_tagged():
    idle_bit = pynvml.nvmlClocksEventReasonGpuIdle
    user_bit = pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    assert codes(block(gpu=replace(CLEAN_GPU, reasons=idle_bit | user_bit))) == set()


def test_many_short_interruptions_that_cost_no_time_are_no_preemption():
    assert codes(block(host={"preemptions": 40, "thread_s": 0.99})) == set()


def test_time_stolen_from_other_cores_is_no_matter_but_from_one_we_were_on_it_is():
    stolen = {0: 0.9, 1: 0.0, 2: 0.2, 3: 0.9}
    assert codes(block(host={"steal_s": stolen})) == set()
    assert codes(block(host={"steal_s": stolen, "core": 2})) == {"steal"}  # we have moved there


@pytest.mark.parametrize("host", [{"core": 17}, {"core": None}, {"steal_s": {0: 9.0, 2: 9.0}}])
def test_a_core_that_is_not_listed_is_not_observable(host):
    values, tags, unseen = apply_rules(block(host=host), RULES)
    assert (tags, unseen) == ((), ("temps volé par l'hyperviseur",))
    assert "steal" not in values


LISTED = {  # cores in /proc/stat, those we may run on, cores whose stolen time is told
    "all": ((0, 1, 2, 3), {0, 1, 2, 3}, {0, 1, 2, 3}),
    "one is offline": ((0, 2, 3), {0, 2, 3}, {0, 2, 3}),
    "a container that gives other numbers": ((0, 1), {4, 7}, None),
}


@pytest.mark.parametrize("case", LISTED)
def test_stolen_time_is_that_of_the_core_of_this_number(case, monkeypatch):
    listed, allowed, expected = LISTED[case]
    lines = [f"cpu{core} 1 1 1 1 1 1 1 {100 * core} 0 0" for core in listed]
    text = "\n".join(["cpu  9 9 9 9 9 9 9 9 0 0", *lines, "intr 1", ""])
    monkeypatch.setattr(readings.Path, "read_text", lambda path, **_: text)
    monkeypatch.setattr(readings.os, "sched_getaffinity", lambda pid: allowed)
    monkeypatch.setattr(readings.os, "sysconf", lambda name: 100)
    read = Reader()
    stolen = read_host(read).steal_s
    assert stolen == (expected and {core: float(core) for core in expected})
    assert ("steal" in read.failed) == (expected is None)


def test_a_small_model_is_not_dispersed_by_the_clocks_own_microseconds():
    samples = 0.020 + 0.005 * (np.arange(100) % 12 == 0)
    assert codes(block(gpu_ms=samples, levels=Levels(1980, 2619, 0.020))) == set()


def test_what_cannot_be_read_is_not_observable_rather_than_clean():
    host = {"busy_s": None, "steal_s": None, "preemptions": None}
    values, tags, unseen = apply_rules(
        block(gpu=None, before_gpu=None, gpu_ms=None, host=host), RULES
    )
    assert (values, tags) == ({}, ())
    assert set(unseen) == {rule.subject for rule in RULES.values()}


def test_a_reading_of_an_unknown_form_ends_nothing_and_is_told():
    read = Reader()
    strange = block(gpu=replace(CLEAN_GPU, sm_mhz="fast"))
    assert "horloges du GPU" in apply_rules(strange, RULES, read)[2]
    assert "TypeError" in read.failed["gpu_clock_drop"]


def test_hidden_processes_are_not_observable_but_their_traces_count():
    hidden = replace(CLEAN_GPU, processes=frozenset(), shares=(), sm_mhz=1500)
    samples = np.where(np.arange(100) % 5 == 0, 2.9, clean_samples())
    values, tags, unseen = apply_rules(block(gpu=hidden, gpu_ms=samples), RULES)
    assert {tag.code for tag in tags} == {"gpu_clock_drop", "gpu_disturbed"}
    assert "processus du GPU" in unseen
    assert "foreign_gpu_process" not in values


def test_shares_that_never_come_although_we_compute_are_not_observable():
    silent = replace(CLEAN_GPU, shares=())
    assert "processus du GPU" in apply_rules(block(gpu=silent, sampled=False), RULES)[2]
    assert apply_rules(block(gpu=silent, sampled=True), RULES)[2] == ()


def test_a_sandbox_without_cpu_counters_does_not_look_idle():
    assert "charge du CPU" in apply_rules(block(host={"busy_s": 0.0}), RULES)[2]


# --- who is foreign


def shares_of(pids_and_shares, processes, own=frozenset({ME})):
    gpu = replace(CLEAN_GPU, shares=pids_and_shares, processes=frozenset(processes))
    return foreign_shares(gpu, own, gpu.processes), idle_foreigners(gpu, own, gpu.processes)


def test_an_idle_foreign_context_is_noted_and_not_tagged():
    assert shares_of(((ME, 70),), {ME, OTHER}) == ({}, 1)
    assert codes(block(gpu=replace(CLEAN_GPU, processes=frozenset({ME, OTHER})))) == set()


def test_a_foreigner_is_seen_while_we_are_idle():
    assert shares_of(((OTHER, 40),), {ME, OTHER}) == ({OTHER: 0.40}, 0)


def test_samples_of_one_process_are_averaged():
    assert shares_of(((ME, 50), (OTHER, 10), (OTHER, 30)), {ME, OTHER})[0] == {OTHER: 0.20}


def test_alone_under_a_pid_of_another_namespace_we_are_not_our_own_foreigner():
    assert shares_of(((9001, 72),), {9001}) == ({}, 0)
    assert shares_of(((9001, 72),), {ME}) == ({}, 0)  # the two lists disagree


def test_with_unknown_pids_the_larger_share_is_taken_for_ours():
    assert shares_of(((9001, 60), (9002, 25)), {9001, 9002}) == ({9002: 0.25}, 0)


def test_the_hosts_pid_of_this_process_is_ours():
    assert shares_of(((9001, 72),), {9001, OTHER}, own=frozenset({ME, 9001})) == ({}, 1)
    assert os.getpid() in own_pids()


def pids_of_a_fresh_process():
    return own_pids(), os.getpid()


def test_who_spawned_a_fresh_process_is_no_stranger_to_it():
    """isolation='process': the notebook's own context was told as a stranger's in every run."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        ours, pid = pool.submit(pids_of_a_fresh_process).result()
    assert {pid, os.getpid()} <= ours
    assert pid not in own_pids()  # another's child is not ours
    gpu = replace(CLEAN_GPU, processes=frozenset({pid, os.getpid()}), shares=((pid, 70),))
    assert idle_foreigners(gpu, ours, gpu.processes) == 0
    hidden = replace(CLEAN_GPU, processes=frozenset({9001, 9002}), shares=((9001, 70),))
    assert idle_foreigners(hidden, ours, hidden.processes, ours=2) == 0
