"""Files of a session: written whole or not at all, and read back from folders of anywhere.

Sizes are bounded before anything is read, nothing is unpickled, and what is not as a session writes
it is refused with a ResultsError.
"""

import io
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from helpers.results.table import from_csv

LARGEST_FILE = 128 * 2**20  # bytes; a session of an H100's day takes less than 1 % of it
LARGEST_SAMPLES = 512 * 2**20  # bytes, unpacked: 30 million iterations on both clocks
# The texts that others read of an environment; one that an older session did not write is None.
TEXTS = {"software": ("python", "torch", "torchvision"), "gpu": ("name", "uuid")}
TEXTS |= {"cuda": ("torch_cuda", "driver", "cudnn"), "cpu": ("model",), "git": ("commit",)}


class ResultsError(RuntimeError):
    """Results cannot be written or read; those written before are untouched."""


@contextmanager
def explained(path: str | Path, action: str = "write") -> Iterator[None]:
    """Turn what the file system or strange bytes raise into a ResultsError that names the file."""
    try:
        yield
    except ResultsError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy alone raise a dozen kinds
        hint = "; the parameter `results_dir` says where" if action == "write" else ""
        why = getattr(error, "strerror", None) or repr(error)
        raise ResultsError(f"cannot {action} {path}: {why}{hint}") from error


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
            if not regular or len(content := file.read(most + 1)) > most:
                raise ResultsError(f"cannot read {path}: no regular file of at most {most:,} bytes")
    return content


OLDER = {True: "yes", False: "no"}  # sessions that knew two outcomes


@dataclass(frozen=True)
class StoredSession:
    """A complete session: its rows (one per run), the verdict, the machine, the files beside."""

    folder: Path
    name: str
    dataset: str  # one of `table.CHOICES`
    rows: pd.DataFrame
    sentences: tuple[str, ...]
    outcome: str  # "yes", "reserved" or "no"; "" where the verdict does not say
    environment: dict[str, Any]
    parameters: dict[str, Any]
    comparison: str  # the annex's table, or ""
    files: tuple[str, ...]  # names in the folder, hidden files apart

    @property
    def validation_rows(self) -> pd.DataFrame:
        """The runs that the verdict is about: those of the first row's variant and schedule."""
        keys = ["variant", "schedule"]
        return self.rows[(self.rows[keys] == self.rows[keys].iloc[0]).all(axis=1)]

    def samples(self, index: int) -> dict[str, np.ndarray]:
        """Raw samples (ms) by name of row `index`; ResultsError if they do not give its p95."""
        path, row = self.folder / f"run_{index + 1}.npz", self.rows.loc[index]
        samples = load_samples(path)
        for clock in ("host", "gpu"):
            p95, values = row[f"{clock}_p95"], samples.get(f"{clock}_ms", np.zeros(0)).ravel()
            if p95 > 0 and not (values.size and np.isclose(np.quantile(values, 0.95), p95, 1e-6)):
                raise ResultsError(f"{path}: {clock}_ms do not give the p95 of their row, {p95} ms")
        return samples


def read_session(folder: str | Path) -> StoredSession:
    """Read a complete session's folder; its samples are read by `StoredSession.samples`."""
    folder, found = Path(folder), []
    for name in ("session", "verdict", "environment", "parameters"):
        with explained(path := folder / f"{name}.json", "read"):
            found.append({**TypeAdapter(dict).validate_json(read_file(path))})
    (session, verdict, environment, parameters), rows = found, read_results(folder / "results.csv")
    files = [os.fsencode(path.name).decode("utf-8", "replace") for path in folder.iterdir()]
    table = read_file(folder / "comparaison.md") if "comparaison.md" in files else b""
    with explained(folder, "read"):
        if session["state"] != "complete" or rows.empty or not verdict["sentences"]:
            raise ValueError("not complete, or without runs or verdict")
        for part, texts in TEXTS.items():
            own = environment.get(part) or {}
            environment[part] = own | {text: own.get(text) and str(own[text]) for text in texts}
        return StoredSession(
            folder=folder,
            name=folder.resolve().name,
            dataset=rows["dataset"].iloc[0],
            rows=rows,
            sentences=tuple(map(str, verdict["sentences"])),
            outcome=str(verdict.get("outcome") or OLDER.get(verdict.get("accepted"), "")),
            environment=environment,
            parameters=parameters | {"model": str(parameters.get("model") or "")},
            comparison=table.decode("utf-8"),
            files=tuple(sorted(name for name in files if not name.startswith("."))),
        )


def read_results(path: str | Path) -> pd.DataFrame:
    """Read a results CSV by column name: str, int64, float64 (NaN where empty), datetimes.

    An older file has no `model` and `accepted`. Raises ResultsError where it holds no results.
    """
    with explained(path, "read"):
        return from_csv(read_file(path).decode("utf-8-sig"))  # a spreadsheet adds a mark


def load_samples(path: str | Path) -> dict[str, np.ndarray]:
    """Raw samples of one run by name, as `Session.add_run` kept them; unpickles nothing.

    Raises ResultsError where the file holds anything but arrays of numbers of a bounded size.
    """
    packed = io.BytesIO(read_file(path, LARGEST_SAMPLES))
    with explained(path, "read"), zipfile.ZipFile(packed) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST_SAMPLES:
            raise ValueError(f"unpacked, it is larger than {LARGEST_SAMPLES:,} bytes")
        samples = dict(np.load(packed, allow_pickle=False))
        if not samples or any(array.dtype.kind not in "biuf" for array in samples.values()):
            raise ValueError("it is empty, or holds an array that is not of numbers")
    return samples
