"""How a latency is read: two clocks, what is held fixed meanwhile, and what each clock is worth."""
# ruff: noqa: F401

from helpers.clocks.calibration import calibrate
from helpers.clocks.profiling import try_profile
from helpers.clocks.timing import GpuClock, NotQueueableError, host_latencies
