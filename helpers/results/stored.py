"""A session read back from its folder: the one reader of what may come from anywhere.

Sizes are bounded before anything is read, nothing is unpickled, and whatever has not the shape that
a session writes is refused with one error that names the file and the field.
"""

import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.results.files import ResultsError, explained, read_file
from helpers.results.table import RowError, from_csv, to_frame
from helpers.stats import summarise

LARGEST_SAMPLES = 512 * 2**20  # bytes, unpacked: 30 million iterations on both clocks
FEWEST_SAMPLES = 20  # the smallest n whose p95 is not the maximum, as in the parameters
COMPARISON = "comparaison.md"  # written by the notebook's annex
SECTIONS = ("software", "cuda", "cpu")  # of environment.json; "gpu" is null where there is none
TEXTS = {  # what reports and campaigns quote of each section
    "gpu": ("name", "uuid"),
    "software": ("python", "torch", "torchvision"),
    "cuda": ("torch_cuda", "driver", "cudnn"),
    "cpu": ("model",),
    "git": ("commit",),
}


@dataclass(frozen=True)
class StoredSession:
    """A complete session: its rows (one per run), the verdict, the machine, the files beside them.

    `environment` has each section of TEXTS with these texts, None where they are not written, and
    None for `gpu` where there is none. `parameters`: the notebook's, as far as an older session
    wrote them down; `train_epochs` is always there. `comparison`: the annex's table, or "".
    `files`: names of what lies in the folder, hidden files apart.
    """

    folder: Path
    rows: pd.DataFrame
    sentences: tuple[str, ...]
    accepted: bool | None
    environment: dict[str, Any]
    parameters: dict[str, Any]
    comparison: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """The session's name, which is its folder's."""
        return self.folder.resolve().name

    @property
    def validation_rows(self) -> pd.DataFrame:
        """The runs that the verdict is about: those of the first row's variant and schedule."""
        keys = ["variant", "schedule"]
        return self.rows[(self.rows[keys] == self.rows[keys].iloc[0]).all(axis=1)]

    @property
    def dataset(self) -> str:
        """Which images were used: "cifar10" or "synthetic"."""
        return self.rows["dataset"].iloc[0]

    def samples(self, index: int) -> dict[str, np.ndarray]:
        """Raw samples of the run in row `index`, from 0, whose figures they must give again.

        Raises
        ------
        ResultsError
            They cannot be read, are too few or not above 0, or contradict their row.
        """
        path, row = self.folder / f"run_{index + 1}.npz", self.rows.loc[index]
        samples = load_samples(path)
        for clock in ("host", "gpu"):
            told = {"mean": row[f"{clock}_mean"], "p95": row[f"{clock}_p95"]}
            if clock == row["clock"]:
                told |= {n: row[f"lat_{n}"] for n in ("mean", "p95", "p50", "std", "min", "max")}
            if clock == "host" or not np.isnan(told["mean"]):
                _check_samples(path, f"{clock}_ms", samples, told)
        return samples


def _check_samples(path: Path, name: str, samples: dict, told: dict[str, float]) -> None:
    values = samples.get(name)
    if values is None or values.ndim != 1 or values.size < FEWEST_SAMPLES:
        found = "it is missing" if values is None else f"its shape is {values.shape}"
        raise ResultsError(f"{path}: {name}: {FEWEST_SAMPLES} samples or more are needed, {found}")
    if not (np.isfinite(values).all() and values.min() > 0):
        raise ResultsError(f"{path}: {name}: a sample is 0, negative or not finite")
    found = summarise(values)
    for figure, expected in told.items():
        if not np.isclose(getattr(found, figure), expected, rtol=1e-6, atol=1e-9):
            raise ResultsError(
                f"{path}: {name}: the samples' {figure} is {getattr(found, figure)} ms, their row "
                f"in results.csv says {expected}"
            )


def read_session(folder: str | Path) -> StoredSession:
    """Read a complete session's folder; its samples are read by `StoredSession.samples`.

    Raises
    ------
    ResultsError
        The folder holds no complete session: the message names the file, and the field.
    """
    folder = Path(folder)
    state = _field(folder / "session.json", read_json(folder / "session.json"), "state", str)
    if state != "complete":
        name = folder.resolve().name
        raise ResultsError(f"session {name} is {state[:40]!r}, not complete: run a new one")
    verdict, path = read_json(folder / "verdict.json"), folder / "verdict.json"
    sentences = _field(path, verdict, "sentences", list)
    if not sentences or not all(isinstance(told, str) for told in sentences):
        raise ResultsError(f"{path}: sentences: one text or more is needed")
    accepted = _field(path, verdict, "accepted", bool | None, default=None)
    rows = read_results(folder / "results.csv")
    if rows.empty:
        raise ResultsError(f"{folder / 'results.csv'}: it holds no run")
    comparison, table = "", folder / COMPARISON
    if os.path.lexists(table):
        comparison = _decoded(table)
    return StoredSession(
        folder=folder,
        rows=rows,
        sentences=tuple(sentences),
        accepted=accepted,
        environment=_environment(folder / "environment.json"),
        parameters=_parameters(folder / "parameters.json"),
        comparison=comparison,
        files=_files(folder),
    )


def _files(folder: Path) -> tuple[str, ...]:
    with explained(folder, "read"):
        names = [os.fsencode(path.name).decode("utf-8", "replace") for path in folder.iterdir()]
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _environment(path: Path) -> dict[str, Any]:
    environment = read_json(path)
    sections = {name: _field(path, environment, name, dict) for name in SECTIONS}
    sections["git"] = _field(path, environment, "git", dict, default={})
    sections["gpu"] = _field(path, environment, "gpu", dict | None)
    for section, names in TEXTS.items():
        if (found := sections[section]) is not None:
            told = {
                n: _field(path, found, n, str | None, f"{section}.", default=None) for n in names
            }
            sections[section] = found | told
    if sections["gpu"] and sections["gpu"]["name"] is None:
        raise ResultsError(f"{path}: gpu.name: str is needed, it is missing")
    return environment | sections


def _parameters(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):  # older sessions did not write them
        return {"train_epochs": 0}
    parameters = read_json(path)
    if not isinstance(parameters, dict):
        raise ResultsError(f"{path}: an object is needed, it holds {type(parameters).__name__}")
    _field(path, parameters, "model", str | None, default=None)
    return parameters | {"train_epochs": _field(path, parameters, "train_epochs", int, default=0)}


def _field(path: Path, content: Any, name: str, kind: Any, where: str = "", **default: Any) -> Any:
    """A field of a JSON object, whose type it must have; bool is no int."""
    if not isinstance(content, dict):
        raise ResultsError(f"{path}: an object is needed, it holds {type(content).__name__}")
    if name not in content and "default" in default:
        return default["default"]
    value = content.get(name)
    if name not in content or not isinstance(value, kind) or (value is True and kind is int):
        found = f"it holds {repr(value)[:60]}" if name in content else "it is missing"
        needed = getattr(kind, "__name__", kind)
        raise ResultsError(f"{path}: {where}{name}: {needed} is needed, {found}")
    return value


def read_json(path: Path) -> Any:
    """Content of a JSON file: no NaN, no text that UTF-8 cannot write, no nesting without end."""
    try:
        content = json.loads(_decoded(path), parse_constant=_refuse_constant)
        json.dumps(content, ensure_ascii=False).encode()  # finds a lone surrogate
        return content
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path} holds no JSON of a session: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_results(path: str | Path) -> pd.DataFrame:
    """Read a results CSV: str, int64, float64 (NaN where empty) and, for timestamps, datetimes.

    An empty text stays "". Every row is checked as when it was written.

    Raises
    ------
    ResultsError
        If the file cannot be read or does not hold results.
    """
    try:
        return to_frame(from_csv(_decoded(path)))
    except RowError as error:
        raise ResultsError(f"{path} does not hold results of this project: {error}") from None


def _decoded(path: str | Path) -> str:
    try:
        return read_file(path).decode("utf-8-sig")  # a spreadsheet adds a mark
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is not UTF-8: {error}") from None


def load_samples(path: str | Path) -> dict[str, np.ndarray]:
    """Raw samples of one run by name, as `Session.add_run` was given them; unpickles nothing.

    Raises
    ------
    ResultsError
        If the file cannot be read, or holds anything but arrays of numbers of a bounded size.
    """
    packed = io.BytesIO(read_file(path, LARGEST_SAMPLES))
    try:
        with zipfile.ZipFile(packed) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_SAMPLES:
                raise ValueError(f"unpacked, it is larger than {LARGEST_SAMPLES:,} bytes")
            members = [(m.filename.removesuffix(".npy"), m) for m in archive.infolist()]
            samples = {name: _array(archive.read(member)) for name, member in members}
    except Exception as error:  # spoilt bytes: zipfile, zlib and NumPy raise a dozen kinds
        raise ResultsError(f"{path} holds no samples: {error}") from None
    if not samples:
        raise ResultsError(f"{path} holds no samples: it is empty")
    return samples


def _array(content: bytes) -> np.ndarray:
    """One array of an .npz file, whose size its header must not overstate."""
    header = io.BytesIO(content)
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    if dtype.kind not in "biuf":
        raise ValueError(f"an array of {dtype}, not of numbers")
    if min(shape, default=0) < 0 or np.prod(shape, dtype=object) * dtype.itemsize > len(content):
        raise ValueError(f"an array announced as {shape} in {len(content)} bytes")
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
