"""Interference: a fake NVML, invented looks, one rule after the other, and one real CPU load."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest
import torch

from helpers.bench_latency import benchmark_latency
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
from helpers.validation.interference import quiet as interference_quiet
from helpers.validation.interference.evidence import (
    Evidence,
    Levels,
    apply_rules,
    foreign_shares,
    idle_foreigners,
)
from helpers.validation.interference.quiet import wait_quiet
from helpers.validation.interference.rules import GPU_RULES, HOST_ONLY, HOST_RULES

ME, OTHER, THIRD = 100, 200, 300
RULES = GPU_RULES | HOST_RULES
CLEAN_GPU = GpuReading(
    processes=frozenset({ME}),
    shares=((ME, 70),),
    utilisation=70,
    sm_mhz=1980,
    memory_mhz=2619,
    reasons=0,
    limited_s=3.0,
    temperature_c=55,
    slowdown_c=89,
    power_w=180.0,
    energy_j=1e6,
    ecc_errors=4,
)


def host_at(at_s, **changes):
    """A host on which this thread has computed alone, on one of four CPUs, since 0."""
    counters = {
        "at_s": at_s,
        "busy_s": at_s,
        "core": 1,
        "steal_s": (0.0, 0.0, 0.0, 0.0),
        "own_s": at_s,
        "thread_s": at_s,
        "preemptions": 0,
        "major_faults": 0,
        "minor_faults": 0,
        "gc_runs": 0,
        "allocator_retries": 0,
        "cpu_mhz": 3000.0,
    }
    return HostReading(**(counters | changes))


def snapshot(at_s, gpu=CLEAN_GPU, **host):
    return Snapshot(at_s, at_s + 0.005, gpu, host_at(at_s, **host))


def clean_samples(n=100, seed=0):
    return 1.300 + 0.003 * np.random.default_rng(seed).standard_normal(n)


def block(gpu=CLEAN_GPU, before_gpu=CLEAN_GPU, host=None, **evidence):
    """A block of one second, clean unless changed."""
    context = {
        "own": frozenset({ME}),
        "listed": (gpu and gpu.processes) or frozenset(),
        "cpus": 4,
        "gpu_ms": clean_samples(),
        "levels": Levels(1980, 2619, 3000.0, 1.300),
        "warmup_used": 50,
    }
    after = snapshot(1.0, gpu, **(host or {}))
    return Evidence(snapshot(0.0, before_gpu), after, **(context | evidence))


def codes(evidence):
    return {tag.code for tag in apply_rules(evidence, RULES)[1]}


# --- rules


def test_a_clean_block_has_no_tag_and_every_rule_has_measured():
    values, tags, unseen = apply_rules(block(first=True), RULES)
    assert tags == ()
    assert unseen == ()
    assert values.keys() == RULES.keys()


GPU_FAULTS = {
    "foreign_gpu_process": {
        "gpu": replace(CLEAN_GPU, processes=frozenset({ME, OTHER}), shares=((ME, 60), (OTHER, 19)))
    },
    "gpu_clock_drop": {"gpu": replace(CLEAN_GPU, sm_mhz=1700)},
    "throttle": {"gpu": replace(CLEAN_GPU, reasons=pynvml.nvmlClocksEventReasonSwPowerCap)},
    "hot": {"gpu": replace(CLEAN_GPU, temperature_c=86)},
    "ecc": {"gpu": replace(CLEAN_GPU, ecc_errors=5)},
    "cold_gpu": {"before_gpu": replace(CLEAN_GPU, sm_mhz=345), "first": True},
    "gpu_disturbed": {"gpu_ms": np.where(np.arange(100) % 10 == 0, 3.0, clean_samples())},
    "gpu_shift": {"gpu_ms": 1.1 * clean_samples()},
    "allocator_retry": {"host": {"allocator_retries": 1}},
}
HOST_FAULTS = {
    "warmup_short": {"warmup_used": 3, "first": True},
    "cpu_load": {"host": {"busy_s": 3.9}},
    "steal": {"host": {"steal_s": (0.0, 0.2, 0.0, 0.0)}},
    "cpu_clock": {"host": {"cpu_mhz": 2500.0}},
    "gc": {"host": {"gc_runs": 1}},
    "preempted": {"host": {"preemptions": 150, "thread_s": 0.5}},
    "page_faults": {"host": {"major_faults": 8}},
}


@pytest.mark.parametrize(("code", "changes"), (GPU_FAULTS | HOST_FAULTS).items())
def test_each_fault_raises_its_own_tag_and_no_other(code, changes):
    assert codes(block(**changes)) == {code}


def test_every_rule_has_a_fault_here():
    assert GPU_FAULTS.keys() == GPU_RULES.keys()
    assert HOST_FAULTS.keys() == HOST_RULES.keys()
    assert HOST_RULES.keys() - {"warmup_short"} == HOST_ONLY


def test_power_limit_seen_by_its_counter_after_the_reason_bit_is_gone():
    found = block(gpu=replace(CLEAN_GPU, limited_s=3.3))
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
    stolen = (0.9, 0.0, 0.2, 0.9)
    assert codes(block(host={"steal_s": stolen})) == set()
    assert codes(block(host={"steal_s": stolen, "core": 2})) == {"steal"}  # we have moved there


def test_a_small_model_is_not_dispersed_by_the_clocks_own_microseconds():
    samples = 0.020 + 0.005 * (np.arange(100) % 12 == 0)
    assert codes(block(gpu_ms=samples, levels=Levels(1980, 2619, 3000.0, 0.020))) == set()


def test_what_cannot_be_read_is_not_observable_rather_than_clean():
    values, tags, unseen = apply_rules(
        block(gpu=None, before_gpu=None, gpu_ms=None, host={"cpu_mhz": None, "steal_s": None}),
        RULES,
    )
    assert tags == ()
    assert "processus du GPU" in unseen
    assert "fréquence du cœur" in unseen
    assert not {"foreign_gpu_process", "throttle", "steal", "gpu_disturbed"} & values.keys()


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


# --- readings


@pytest.fixture
def nvml(monkeypatch):
    """An NVML whose answers a test changes; a class of NVMLError as an answer is raised."""
    process = SimpleNamespace(pid=ME)
    answers = {
        "nvmlDeviceGetPowerUsage": 180_000,
        "nvmlDeviceGetTotalEnergyConsumption": 5000,
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=70),
        "nvmlDeviceGetClockInfo": 1980,
        "nvmlDeviceGetTemperature": 55,
        "nvmlDeviceGetTemperatureThreshold": 89,
        "nvmlDeviceGetComputeRunningProcesses": [process],
        "nvmlDeviceGetGraphicsRunningProcesses": [],
        "nvmlDeviceGetCurrentClocksEventReasons": 0,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 4,
        "nvmlDeviceGetViolationStatus": SimpleNamespace(violationTime=500_000_000),
        "nvmlDeviceGetTotalEccErrors": 1,
        "nvmlDeviceGetProcessUtilization": [],
    }

    def fake(name):
        def answer(*arguments):
            value = answers[name]
            if isinstance(value, type) and issubclass(value, pynvml.NVMLError):
                raise value()
            return value

        return answer

    for name in answers:
        monkeypatch.setattr(pynvml, name, fake(name))
    return answers


def sample(pid, share, stamp):
    return SimpleNamespace(pid=pid, smUtil=share, timeStamp=stamp)


def test_gpu_reading_in_its_units(nvml):
    reading = read_gpu("handle", ())
    assert reading.power_w == 180.0
    assert reading.energy_j == 5.0
    assert reading.limited_s == 1.0  # power and thermal
    assert reading.ecc_errors == 2  # corrected and uncorrected
    assert reading.processes == {ME}


@pytest.mark.parametrize("error", [pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission])
def test_refusals_of_nvml_become_none(nvml, error):
    nvml.update(dict.fromkeys(nvml, error))
    reading = read_gpu("handle", None)
    assert set(vars(reading).values()) == {None}


def test_an_old_driver_tells_the_reasons_under_the_old_name(nvml):
    nvml["nvmlDeviceGetCurrentClocksEventReasons"] = pynvml.NVMLError_FunctionNotFound
    assert read_gpu("handle", ()).reasons == 4


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
    before, after = read_host(cuda=False), read_host(cuda=False)
    counters = ("at_s", "busy_s", "own_s", "thread_s", "preemptions", "major_faults", "gc_runs")
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


def result(gpu_ms, n=None, warmup_used=50):
    n = len(gpu_ms) if n is None else n
    return SimpleNamespace(
        host=SimpleNamespace(n=n), gpu=SimpleNamespace(samples_ms=gpu_ms), warmup_used=warmup_used
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
    looks = [snapshot(0.0), snapshot(1.0), snapshot(2.0, FOREIGN), snapshot(3.0, gc_runs=4)]
    seen = staged(looks).observations(result(clean_samples(300)))
    assert flags(seen) == ("foreign_gpu_process", "gc")
    told = describe(seen, run=2)
    assert told[0].replace("\N{NO-BREAK SPACE}", " ") == (
        "processus étranger 200, 19 % des SM pendant le run 2 (bloc 2 sur 3)"
    )
    assert "4 fois pendant le run 2 (bloc 3 sur 3)" in told[1]


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


def test_runs_that_took_turns_get_their_own_blocks(staged):
    looks = [snapshot(0.0), snapshot(1.0), snapshot(2.0, FOREIGN), snapshot(3.0), snapshot(4.0)]
    first, second = staged(looks).interleaved([result(clean_samples(200))] * 2)
    assert [len(first), len(second)] == [2, 2]
    assert flags(first) == ()
    assert flags(second) == ("foreign_gpu_process",)


def test_looks_that_do_not_surround_the_blocks_are_refused(staged):
    watch = staged([snapshot(0.0), snapshot(1.0)])
    with pytest.raises(ValueError, match="surround the blocks of 1 run"):
        watch.observations(result(clean_samples(500)))


def test_untagged_keeps_gpu_samples_that_only_the_host_disturbed(staged):
    looks = [snapshot(0.0), snapshot(1.0, gc_runs=2), snapshot(2.0, FOREIGN, gc_runs=2)]
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
    assert "warmup_short" in flags(seen) or measured.warmup_used >= 50
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
    assert seen[0].temperature_c == 55


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


# --- waiting


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only by sleeping, for `wait_quiet`."""
    now = [0.0]
    fake = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(interference_quiet, "time", fake)
    return SimpleNamespace(now=now, sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))


def watch_of(clock, busy_until_s):
    watch = Watch("cpu")
    idle = replace(CLEAN_GPU, shares=(), utilisation=0)

    def read():
        t = clock.now[0]
        busy = replace(idle, utilisation=90) if t <= busy_until_s else idle
        return snapshot(t, busy, busy_s=0.01 + t / 10, own_s=0.0)

    watch.read, watch._cpus = read, 4
    return watch


def test_wait_ends_a_second_after_the_machine_went_quiet(clock):
    waited = wait_quiet(watch_of(clock, 2.0), 30, clock.sleep)
    assert waited.quiet
    assert waited.busy == ()
    assert 3.0 <= waited.waited_s <= 3.5


def test_wait_is_bounded_and_says_what_went_on(clock):
    waited = wait_quiet(watch_of(clock, 1e9), 5, clock.sleep)
    assert not waited.quiet
    assert waited.waited_s == pytest.approx(5)
    assert "GPU occupé" in waited.busy[0]


def test_no_wait_claims_nothing(clock):
    waited = wait_quiet(watch_of(clock, 0), 0, clock.sleep)
    assert (waited.waited_s, waited.quiet, waited.busy) == (0, False, ("non vérifié",))


def test_every_phrase_is_written_for_a_block_of_each_kind():
    for changes in (GPU_FAULTS | HOST_FAULTS).values():
        for tag in apply_rules(block(**changes), RULES)[1]:
            assert tag.phrase
            assert "None" not in tag.phrase
            assert tag.value >= tag.limit
