"""Files of a session: written whole or not at all, and read back from folders of anywhere.

Sizes are bounded before anything is read, nothing is unpickled, and what has not the shape that a
session writes is refused with one ResultsError that names the file and the problem.
"""

import csv
import io
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from helpers.results.table import from_csv

LARGEST_FILE = 128 * 2**20  # bytes; a session of an H100's day takes less than 1 % of it
LARGEST_SAMPLES = 512 * 2**20  # bytes, unpacked: 30 million iterations on both clocks


class ResultsError(RuntimeError):
    """Results cannot be written or read; those written before are untouched."""


@contextmanager
def explained(path: str | Path, action: str = "write") -> Iterator[None]:
    """Turn an error of the file system into a ResultsError that names the file."""
    try:
        yield
    except OSError as error:
        hint = "; the parameter `results_dir` says where" if action == "write" else ""
        raise ResultsError(f"cannot {action} {path}: {error.strerror or error}{hint}") from error


def write_file(path: Path, content: bytes) -> Path:
    """Replace `path` in one step: whoever reads it finds the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with explained(path):
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return path


def read_file(path: str | Path, most: int = LARGEST_FILE) -> bytes:
    """Read a regular file of at most `most` bytes, else raise ResultsError; never wait for one."""
    with explained(path, "read"):
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for its writer
        with open(opened, "rb") as file:
            regular = stat.S_ISREG(os.fstat(opened).st_mode)
            content = file.read(most + 1) if regular else b""
    if not regular or len(content) > most:
        raise ResultsError(f"cannot read {path}: no regular file of at most {most:,} bytes")
    return content


class _Stored(BaseModel):
    """What others read of a JSON file; the rest is kept as it is."""

    model_config = ConfigDict(extra="allow", strict=True)


def _object(*texts: str, **more: Any) -> type[_Stored]:
    """A JSON object: these texts, None where an older session did not write them, and `more`."""
    fields = dict.fromkeys(texts, (str | None, None)) | more
    return create_model("Stored", __base__=_Stored, **fields)


_GIT = _object("commit")
_ENVIRONMENT = _object(
    software=_object("python", "torch", "torchvision"),
    cuda=_object("torch_cuda", "driver", "cudnn"),
    cpu=_object("model"),
    gpu=_object("uuid", name=str) | None,
    git=(_GIT, _GIT()),
)
_PARAMETERS = _object("model", train_epochs=(int, 0))
_TEXTS = Annotated[list[str], Field(min_length=1)]
_VERDICT = _object("outcome", sentences=_TEXTS, accepted=(bool | None, None))


@dataclass(frozen=True)
class StoredSession:
    """A complete session: its rows (one per run), the verdict, the machine, the files beside them.

    `environment`, `parameters`: as written, and None for a text that an older session did not
    write. `outcome`: "yes", "reserved", "no", or "" if unknown. `comparison`: the annex's table, or
    "". `files`: names in the folder, hidden files apart.
    """

    folder: Path
    name: str
    dataset: str  # "cifar10" or "synthetic"
    rows: pd.DataFrame
    sentences: tuple[str, ...]
    accepted: bool | None
    outcome: str
    environment: dict[str, Any]
    parameters: dict[str, Any]
    comparison: str
    files: tuple[str, ...]

    @property
    def validation_rows(self) -> pd.DataFrame:
        """The runs that the verdict is about: those of the first row's variant and schedule."""
        keys = ["variant", "schedule"]
        return self.rows[(self.rows[keys] == self.rows[keys].iloc[0]).all(axis=1)]

    def samples(self, index: int) -> dict[str, np.ndarray]:
        """Raw samples (ms) by name of the run in row `index`, from 0.

        Raises ResultsError where they cannot be read, or do not give their row's p95 again.
        """
        path, row = self.folder / f"run_{index + 1}.npz", self.rows.loc[index]
        samples = load_samples(path)
        for clock in ("host", "gpu"):
            p95, values = row[f"{clock}_p95"], samples.get(f"{clock}_ms", np.zeros(0)).ravel()
            if p95 > 0 and not (values.size and np.isclose(np.quantile(values, 0.95), p95, 1e-6)):
                raise ResultsError(f"{path}: {clock}_ms do not give the p95 of their row, {p95} ms")
        return samples


def read_session(folder: str | Path) -> StoredSession:
    """Read a complete session's folder; its samples are read by `StoredSession.samples`."""
    folder = Path(folder)
    name, state = folder.resolve().name, _json(folder / "session.json", _object(state=str))["state"]
    if state != "complete":
        raise ResultsError(f"session {name} is {state[:40]!r}, not complete")
    verdict, rows = _json(folder / "verdict.json", _VERDICT), read_results(folder / "results.csv")
    if rows.empty:
        raise ResultsError(f"{folder / 'results.csv'} holds no run")
    names = [os.fsencode(path.name).decode("utf-8", "replace") for path in folder.iterdir()]
    return StoredSession(
        folder=folder,
        name=name,
        dataset=rows["dataset"].iloc[0],
        rows=rows,
        sentences=tuple(verdict["sentences"]),
        accepted=(accepted := verdict["accepted"]),
        outcome=verdict["outcome"] or {True: "yes", False: "no", None: ""}[accepted],
        environment=_json(folder / "environment.json", _ENVIRONMENT),
        parameters=_json(folder / "parameters.json", _PARAMETERS, missing="{}"),
        comparison=_text(folder / "comparaison.md", missing=""),
        files=tuple(sorted(name for name in names if not name.startswith("."))),
    )


def _json(path: Path, kind: type[_Stored], **missing: str) -> dict[str, Any]:
    try:
        return kind.model_validate_json(_text(path, **missing)).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ResultsError(f"{path}: {where}: {first['msg'][:200]}") from None


def _text(path: Path, missing: str | None = None) -> str:
    """Text of a file, or `missing`: older sessions did not write them all."""
    if missing is not None and not os.path.lexists(path):
        return missing
    try:
        return read_file(path).decode("utf-8-sig")  # a spreadsheet adds a mark
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is not UTF-8: {error}") from None


def read_results(path: str | Path) -> pd.DataFrame:
    """Read a results CSV: str, int64, float64 (NaN where empty) and, for timestamps, datetimes.

    Raises ResultsError where the file cannot be read or does not hold results.
    """
    try:
        return from_csv(_text(Path(path)))
    except (ValueError, csv.Error) as error:
        raise ResultsError(f"{path} does not hold results of this project: {error}") from None


def load_samples(path: str | Path) -> dict[str, np.ndarray]:
    """Raw samples of one run by name, as `Session.add_run` kept them; unpickles nothing.

    Raises ResultsError where the file holds anything but arrays of numbers of a bounded size.
    """
    packed = io.BytesIO(read_file(path, LARGEST_SAMPLES))
    try:
        with zipfile.ZipFile(packed) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_SAMPLES:
                raise ValueError(f"unpacked, it is larger than {LARGEST_SAMPLES:,} bytes")
        samples = dict(np.load(packed, allow_pickle=False))
        if not samples or any(array.dtype.kind not in "biuf" for array in samples.values()):
            raise ValueError("it is empty, or holds an array that is not of numbers")
    except Exception as error:  # spoilt bytes: zipfile, zlib and NumPy raise a dozen kinds
        raise ResultsError(f"{path} holds no samples: {error}") from None
    return samples
