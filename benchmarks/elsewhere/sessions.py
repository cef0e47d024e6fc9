"""What the notebook says on machines and of models that are not ours: one session each.

    python -m benchmarks.elsewhere.sessions FOLDER [NAME ...]

Each session is a papermill run of its own with its environment variables; `sessions.json` gets the
exit code, the verdict's sentences and the rows' flags of each, as they were printed.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = "benchmarks.elsewhere.models"
# name: (variables set, variables unset, parameters)
SESSIONS = {
    "default": ({}, (), ()),
    "driver_only": ({"PATH": "/usr/bin:/bin"}, ("CUDA_HOME", "CUDA_PATH"), ()),
    "own_stream": ({}, (), ("model", f"{MODELS}:own_stream")),
    "joined": ({}, (), ("model", f"{MODELS}:joined")),
    "long_queue": ({}, (), ("model", f"{MODELS}:long_queue")),
    "long_queue_4x": (
        {"CUDA_SCALE_LAUNCH_QUEUES": "4x"},
        (),
        ("model", f"{MODELS}:long_queue"),
    ),
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
            verdict = json.loads((session / "verdict.json").read_text(encoding="utf-8"))
            record["sentences"] = verdict["sentences"]
        if (session / "results.csv").is_file():
            text = (session / "results.csv").read_text(encoding="utf-8").splitlines()
            record["rows"] = [
                {k: row[k] for k in ("variant", "clock", "gpu_p95", "host_p95", "flags")}
                for row in csv.DictReader(text)
            ]
        if (session / "variants.json").is_file():
            guard = json.loads((session / "variants.json").read_text(encoding="utf-8"))
            record["guard"] = {
                variant: seen["precision_evidence"] for variant, seen in guard["measured"].items()
            }
            record["not_measured"] = guard["not_measured"]
        if done.returncode:
            record["error"] = done.stderr.strip().splitlines()[-1]
    return record


def main(folder: Path, names: list[str]) -> None:
    """Write sessions.json into `folder` after each session, and print what each said first."""
    folder.mkdir(parents=True, exist_ok=True)
    records = {}
    for name in names or SESSIONS:
        records[name] = measure(name)
        text = json.dumps(records, indent=1, ensure_ascii=False) + "\n"
        (folder / "sessions.json").write_text(text, encoding="utf-8")
        print(
            name, records[name]["exit_code"], *records[name].get("sentences", ["-"])[:2], sep=" | "
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
