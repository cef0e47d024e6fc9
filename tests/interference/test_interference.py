"""Interference: a fake NVML, invented looks, one rule after the other, and one real CPU load."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import nvml_fake
import pynvml
import pytest
import torch
from nvml_fake import ME, OTHER, sample

from helpers.bench_latency import benchmark_latency
from helpers.display.verdict import disturbances
from helpers.environment import readings
from helpers.environment.facts import Reader
from helpers.environment.readings import (
    GpuReading,
    HostReading,
    Snapshot,
    own_pids,
    read_gpu,
    read_host,
    utilisation_samples,
)
from helpers.validation import interference
from helpers.validation.interference import Watch, describe, flags, not_observable, untagged
from helpers.validation.interference.evidence import (
    Evidence,
    Levels,
    apply_rules,
    foreign_shares,
    idle_foreigners,
)
from helpers.validation.interference.rules import GPU_RULES, HOST_ONLY, HOST_RULES

RULES = GPU_RULES | HOST_RULES
CLEAN_GPU = GpuReading(
    processes=frozenset({ME}),
    shares=((ME, 70),),
    sm_mhz=1980,
    memory_mhz=2619,
    reasons=0,
    power_limited_s=3.0,
    thermal_limited_s=0.0,
    temperature_c=55,
    power_w=180.0,
)


def host_at(at_s, **changes):
    """A host on which this thread has computed alone, on one of four CPUs, since 0."""
    counters = {
        "at_s": at_s,
        "busy_s": at_s,
        "core": 1,
        "steal_s": dict.fromkeys(range(4), 0.0),
        "own_s": at_s,
        "thread_s": at_s,
        "preemptions": 0,
    }
    return HostReading(**(counters | changes))


def snapshot(at_s, gpu=CLEAN_GPU, **host):
    return Snapshot(at_s, at_s + 0.005, gpu, host_at(at_s, **host), {})


def clean_samples(n=100, seed=0):
    return 1.300 + 0.003 * np.random.default_rng(seed).standard_normal(n)


def block(gpu=CLEAN_GPU, before_gpu=CLEAN_GPU, host=None, **evidence):
    """A block of one second, clean unless changed."""
    context = {
        "own": frozenset({ME}),
        "listed": (gpu and gpu.processes) or frozenset(),
        "cpus": 4,
        "gpu_ms": clean_samples(),
        "levels": Levels(1980, 2619, 1.300),
    }
    after = snapshot(1.0, gpu, **(host or {}))
    return Evidence(snapshot(0.0, before_gpu), after, **(context | evidence))


def codes(evidence):
    return {tag.code for tag in apply_rules(evidence, RULES)[1]}


# --- rules


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


def test_power_limit_seen_by_its_counter_after_the_reason_bit_is_gone():
    found = block(gpu=replace(CLEAN_GPU, power_limited_s=3.2, thermal_limited_s=0.1))
    (tag,) = apply_rules(found, RULES)[1]
    assert tag.code == "throttle"
    assert tag.value == pytest.approx(0.3)


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


# --- readings


@pytest.fixture
def nvml(monkeypatch):
    return nvml_fake.install(monkeypatch)


def test_gpu_reading_in_its_units(nvml):
    reading = read_gpu("handle", (), Reader())
    assert reading.power_w == 180.0
    assert reading.power_limited_s == reading.thermal_limited_s == 0.5
    assert reading.processes == {ME}


@pytest.mark.parametrize("error", [pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission])
def test_refusals_of_nvml_become_none_with_their_reasons(nvml, error):
    nvml.update(dict.fromkeys(nvml, error))
    read = Reader()
    assert set(vars(read_gpu("handle", None, read)).values()) == {None}
    assert all(error.__name__ in reason for reason in read.failed.values())


def test_an_old_driver_tells_the_reasons_under_the_old_name(nvml):
    nvml["nvmlDeviceGetCurrentClocksEventReasons"] = pynvml.NVMLError_FunctionNotFound
    assert read_gpu("handle", (), Reader()).reasons == 4


def test_new_valid_utilisation_samples_only(nvml):
    nvml["nvmlDeviceGetProcessUtilization"] = [
        sample(ME, 60, 2000),
        sample(OTHER, 20, 1500),
        sample(OTHER, 30, 900),  # already seen
        sample(0, 4_000_000, 2100),  # an unused entry
    ]
    assert utilisation_samples("handle", 1000) == (((ME, 60), (OTHER, 20)), 2000)


def test_no_utilisation_sample_is_an_answer_and_no_support_is_an_error(nvml):
    nvml["nvmlDeviceGetProcessUtilization"] = pynvml.NVMLError_NotFound
    assert utilisation_samples("handle", 7) == ((), 7)
    nvml["nvmlDeviceGetProcessUtilization"] = pynvml.NVMLError_NotSupported
    with pytest.raises(pynvml.NVMLError):
        utilisation_samples("handle", 7)


def test_host_counters_never_fall():
    before, after = read_host(Reader()), read_host(Reader())
    counters = ("at_s", "busy_s", "own_s", "thread_s", "preemptions")
    assert all(getattr(after, name) >= getattr(before, name) for name in counters)


# --- watch


@pytest.fixture
def staged(monkeypatch):
    """A watch of a GPU whose looks are played from a list."""

    def make(looks):
        watch = Watch("cpu")
        watch.device, watch._own, watch._cpus = torch.device("cuda"), frozenset({ME}), 4
        played = iter(looks)
        monkeypatch.setattr(watch, "read", lambda: next(played))
        for _ in looks:
            watch.look()
        return watch

    return make


def result(gpu_ms):
    return SimpleNamespace(
        host=SimpleNamespace(n=len(gpu_ms)), gpu=SimpleNamespace(samples_ms=gpu_ms)
    )


FOREIGN = replace(CLEAN_GPU, processes=frozenset({ME, OTHER}), shares=((ME, 60), (OTHER, 19)))


def test_one_observation_per_block_and_the_tag_on_the_right_one(staged):
    looks = [snapshot(0.0), snapshot(1.0), snapshot(2.0, FOREIGN), snapshot(3.0)]
    seen = staged(looks).observations(result(clean_samples(250)))
    assert [o.block for o in seen] == [0, 1, 2]
    assert [bool(o.tags) for o in seen] == [False, True, False]
    assert seen[1].foreign_sm == pytest.approx(0.19)
    assert seen[1].foreign_pids == (OTHER,)
    assert seen[1].start_s == pytest.approx(1.005)
    assert seen[1].end_s == pytest.approx(2.0)


def test_flags_and_sentences_name_what_was_seen_with_numbers(staged):
    looks = [
        snapshot(0.0),
        snapshot(1.0),
        snapshot(2.0, FOREIGN),
        snapshot(3.0, thread_s=2.5, preemptions=9),
    ]
    seen = staged(looks).observations(result(clean_samples(300)))
    assert flags(seen) == ("foreign_gpu_process", "preempted")
    told = describe(seen, run=2)
    assert told[0].replace("\N{NO-BREAK SPACE}", " ") == (
        "processus étranger 200, 19 % des SM pendant le run 2 (bloc 2 sur 3)"
    )
    assert "9 fois" in told[1]
    assert "pendant le run 2 (bloc 3 sur 3)" in told[1]


def test_describe_tells_what_is_not_observable_and_who_is_only_present(staged):
    hidden = replace(CLEAN_GPU, processes=None, shares=None)
    seen = staged([snapshot(0.0, hidden), snapshot(1.0, hidden)]).observations(None)
    assert any("processus du GPU" in what for what in not_observable(seen))
    assert describe(seen, 1) == []
    idle = replace(CLEAN_GPU, processes=frozenset({ME, OTHER}))
    seen = staged([snapshot(0.0, idle), snapshot(1.0, idle)]).observations(result(clean_samples()))
    assert flags(seen) == ()
    assert describe(seen, 1) == ["1 autre(s) processus présent(s) sur le GPU sans calcul, run 1"]


def test_a_clock_lost_between_two_runs_is_seen_in_the_second(staged):
    slow = replace(CLEAN_GPU, sm_mhz=1600)
    watch = staged([snapshot(0.0), snapshot(1.0)])
    assert flags(watch.observations(result(clean_samples()))) == ()
    watch._looks = [snapshot(2.0, slow), snapshot(3.0, slow)]
    assert "gpu_clock_drop" in flags(watch.observations(result(clean_samples())))


def capped(sm_mhz=1400, reasons=4, **changes):
    return replace(CLEAN_GPU, sm_mhz=sm_mhz, reasons=reasons, **changes)


CAPS = {  # GPU at each of four looks, flags of the run, whether the cap is a condition
    "steady": ([capped(power_limited_s=3.0 + i) for i in range(4)], (), True),
    "within NVML's steps": ([capped(), capped(1395), capped(1410), capped()], (), True),
    "begins in the run": ([capped(reasons=0), *[capped()] * 3], ("throttle",), False),
    "comes and goes": ([capped(), capped(), capped(reasons=0), capped()], ("throttle",), False),
    "the clock falls": (
        [capped(), capped(), capped(1200), capped(1200)],
        ("gpu_clock_drop", "throttle"),
        False,
    ),
    "heat beside it": (
        [capped(), capped(reasons=4 | 0x20), capped(), capped()],
        ("throttle",),
        True,
    ),
    "heat by its counter": (
        [capped(thermal_limited_s=0.2 * i) for i in range(4)],
        ("throttle",),
        True,
    ),
}


@pytest.mark.parametrize("case", CAPS)
def test_a_steady_power_cap_is_a_condition_said_once_and_no_throttle(staged, case):
    gpus, expected, steady = CAPS[case]
    looks = [snapshot(float(at), gpu) for at, gpu in enumerate(gpus)]
    seen = staged(looks).observations(result(clean_samples(300)))
    assert set(flags(seen)) == set(expected)
    assert {o.steady_power_cap for o in seen} == {steady}
    runs = disturbances([seen, seen], "les runs")
    assert runs.count("limite de puissance du GPU atteinte en permanence") == int(steady)


def test_looks_that_do_not_surround_the_blocks_are_refused(staged):
    watch = staged([snapshot(0.0), snapshot(1.0)])
    with pytest.raises(ValueError, match="surround the blocks"):
        watch.observations(result(clean_samples(500)))


def test_untagged_keeps_gpu_samples_that_only_the_host_disturbed(staged):
    lost = {"thread_s": 0.5, "preemptions": 9}
    looks = [snapshot(0.0), snapshot(1.0, **lost), snapshot(2.0, FOREIGN, **lost)]
    samples = clean_samples(150)
    seen = staged(looks).observations(result(samples))
    assert untagged(samples, seen, "gpu").sum() == 100
    assert untagged(samples, seen, "host").sum() == 0
    with pytest.raises(ValueError, match="same run"):
        untagged(clean_samples(500), seen, "host")
    with pytest.raises(ValueError, match="clock='wall'"):
        untagged(samples, seen, "wall")


def test_a_real_run_on_the_cpu_is_observed_block_by_block():
    model, images = torch.nn.Linear(8, 3), [torch.zeros(1, 8)]
    watch = Watch("cpu")
    measured = benchmark_latency(model, images, 10, 250, between_blocks=watch.look)
    seen = watch.observations(measured)
    assert len(seen) == 3
    assert not set(flags(seen)) & GPU_RULES.keys()
    assert untagged(measured.host.samples_ms, seen, "host").shape == (250,)


def test_a_watch_reads_a_gpu_from_nvml_to_flags(nvml, monkeypatch):
    monkeypatch.setattr(interference, "nvml_handle", lambda device: "handle")
    monkeypatch.setattr(interference, "own_pids", lambda: frozenset({ME}))
    nvml["nvmlDeviceGetProcessUtilization"] = [sample(OTHER, 90, 5)]  # before the watch began
    watch = Watch("cuda")
    nvml["nvmlDeviceGetComputeRunningProcesses"] = [
        SimpleNamespace(pid=ME),
        SimpleNamespace(pid=OTHER),
    ]
    watch.look()
    nvml["nvmlDeviceGetProcessUtilization"] = [sample(ME, 70, 10), sample(OTHER, 20, 10)]
    watch.look()
    nvml["nvmlDeviceGetProcessUtilization"] = pynvml.NVMLError_NotFound
    watch.look()
    seen = watch.observations(result(clean_samples(200)))
    assert [o.foreign_sm for o in seen] == [0.20, 0.0]
    assert {"foreign_gpu_process"} == set(flags(seen)) & GPU_RULES.keys()
    assert seen[0].sm_mhz == 1980
    assert seen[0].temperature_c == 54


def test_a_watch_without_permission_is_blind_and_says_so(nvml, monkeypatch):
    monkeypatch.setattr(interference, "nvml_handle", lambda device: "handle")
    nvml.update(dict.fromkeys(nvml, pynvml.NVMLError_NoPermission))
    watch = Watch("cuda")
    watch.look()
    watch.look()
    (seen,) = watch.observations(result(clean_samples()))
    assert not set(flags([seen])) & GPU_RULES.keys()
    assert {"processus du GPU", "horloges du GPU", "bridage du GPU"} <= set(seen.unseen)
    assert seen.foreign_sm is None


@pytest.mark.gpu
def test_on_a_real_gpu_we_are_not_our_own_foreigner():
    model = torch.nn.Linear(256, 256).cuda()
    watch = Watch("cuda")
    measured = benchmark_latency(model, [torch.zeros(1, 256)], 50, 500, between_blocks=watch.look)
    seen = watch.observations(measured)
    assert len(seen) == 5
    assert all(o.sm_mhz for o in seen)
    assert os.getpid() not in {pid for o in seen for pid in o.foreign_pids}


def test_every_phrase_is_written_for_a_block_of_each_kind():
    for changes in (GPU_FAULTS | HOST_FAULTS).values():
        for tag in apply_rules(block(**changes), RULES)[1]:
            assert tag.phrase
            assert "None" not in tag.phrase
            assert tag.value >= tag.limit
