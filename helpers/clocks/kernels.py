"""The clocks' own CUDA kernels: a gate that holds a stream, and a spin of known duration.

They are compiled by the NVRTC that torch's wheels bring and launched through `cuda.core`, so that
the driver alone is enough: no CUDA toolkit, no CUDA_HOME, no nvcc.
"""

from collections.abc import Callable

import torch

# %globaltimer is the GPU's own nanosecond counter; it does not follow the SM clock.
SOURCE = r"""
__device__ __forceinline__ unsigned long long now_ns() {
    unsigned long long t;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
    return t;
}
extern "C" __global__ void gate(volatile int* opened, volatile int* timed_out, int timeout_ms) {
    unsigned long long deadline = now_ns() + timeout_ms * 1000000ULL;
    while (!*opened) {
        if (now_ns() > deadline) { *timed_out = 1; __threadfence_system(); return; }
    }
}
extern "C" __global__ void spin(long long* elapsed_ns, int duration_ns) {
    unsigned long long start = now_ns(), now = start;
    while (now - start < (unsigned long long)duration_ns) now = now_ns();
    *elapsed_ns = (long long)(now - start);
}
"""


def compile_kernel(name: str, device: torch.device) -> Callable[..., None]:
    """Compile the kernel "gate" or "spin" for `device`; returns its launcher.

    The launcher takes pointers as int and numbers as NumPy scalars, and puts one thread of it on
    the device's current stream. Raises whatever NVRTC, the driver or the import raise.
    """
    from cuda.core import Device, LaunchConfig, Program, ProgramOptions, Stream, launch

    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # torch's own context is the current one
        gpu = Device(torch.cuda.current_device())
        gpu.set_current()
        program = Program(SOURCE, "c++", ProgramOptions(arch=f"sm_{gpu.arch}"))
        kernel = program.compile("cubin").get_kernel(name)
    one_thread = LaunchConfig(grid=1, block=1)

    def launcher(*arguments) -> None:
        stream = Stream.from_handle(torch.cuda.current_stream(device).cuda_stream)
        launch(stream, one_thread, kernel, *arguments)

    return launcher


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Return the function that waits until `device` has finished: a no-op on a CPU."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
