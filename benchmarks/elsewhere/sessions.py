"""What the notebook says on machines and of models that are not ours: one session each.

    python -m benchmarks.elsewhere.sessions FOLDER [NAME ...]

Each session is a papermill run of its own with its environment variables; `sessions.json` gets the
exit code, the verdict's sentences and the rows' flags of each, as they were printed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.common import load, save

MODELS = "benchmarks.elsewhere.models"
LONG_QUEUE = ("model", f"{MODELS}:long_queue")
# name: (variables set, variables unset, parameters)
SESSIONS = {
    "default": ({}, (), ()),
    "driver_only": ({"PATH": "/usr/bin:/bin"}, ("CUDA_HOME", "CUDA_PATH"), ()),
    "own_stream": ({}, (), ("model", f"{MODELS}:own_stream")),
    "joined": ({}, (), ("model", f"{MODELS}:joined")),
    "long_queue": ({}, (), LONG_QUEUE),
    "long_queue_4x": ({"CUDA_SCALE_LAUNCH_QUEUES": "4x"}, (), LONG_QUEUE),
    "launch_blocking": ({"CUDA_LAUNCH_BLOCKING": "1"}, (), ()),
    "tf32_override": ({"NVIDIA_TF32_OVERRIDE": "1"}, (), ()),
    "half_precision": ({}, (), ("variants", "fp16+channels_last,bf16+channels_last")),
    "host_clock": ({}, (), ("clock", "host")),
}
SHARED = ("eval_images", "200", "dataset", "synthetic")


def measure(name: str) -> dict:
    """Run one session; returns its exit code, sentences, flags and last line of error."""
    added, removed, parameters = SESSIONS[name]
    variables = {k: v for k, v in os.environ.items() if k not in removed} | added
    with tempfile.TemporaryDirectory() as folder:
        given = (*SHARED, *parameters, "session", name)
        pairs = zip(given[::2], given[1::2], strict=True)
        options = [word for pair in pairs for word in ("-p", *pair)]
        command = [sys.executable, "-m", "papermill", "J1_benchmark.ipynb", f"{folder}/out.ipynb"]
        command += ["--no-progress-bar", "-r", "results_dir", folder, *options]
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        record = {"exit_code": done.returncode, "variables": added, "parameters": parameters}
        session = Path(folder, name)
        if (session / "verdict.json").is_file():
            record["sentences"] = load(session / "verdict.json")["sentences"]
        if (session / "results.csv").is_file():
            rows = pd.read_csv(session / "results.csv", dtype=str, keep_default_na=False)
            columns = ["variant", "clock", "gpu_p95", "host_p95", "flags"]
            record["rows"] = rows[columns].to_dict("records")
        if (session / "variants.json").is_file():
            record["guard"] = load(session / "variants.json")
        if done.returncode:
            record["error"] = done.stderr.strip().splitlines()[-1]
    return record


def main(folder: Path, names: list[str]) -> None:
    """Write sessions.json into `folder` after each session, and print what each said first."""
    records = {}
    for name in names or SESSIONS:
        records[name] = found = measure(name)
        save(folder / "sessions.json", records)
        print(name, found["exit_code"], *found.get("sentences", ["-"])[:2], sep=" | ", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
