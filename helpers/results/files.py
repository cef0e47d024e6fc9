"""Files of a session: written whole or not at all, and read back from folders of anywhere.

Sizes are bounded before anything is read, nothing is unpickled, and what is not as a session writes
it is refused with a ResultsError.
"""

import io
import os
import secrets
import stat
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from helpers.results.table import COLUMNS, csv_text, from_csv

LARGEST_FILE = 128 * 2**20  # bytes; a session of an H100's day takes less than 1 % of it
LARGEST_SAMPLES = 512 * 2**20  # bytes, unpacked: 30 million iterations on both clocks


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
        seen = os.stat(path)
        if stat.S_ISREG(seen.st_mode) and seen.st_size <= most:
            return Path(path).read_bytes()
        raise ResultsError(f"cannot read {path}: no regular file of at most {most:,} bytes")


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

    def samples(self, index: int) -> dict[str, np.ndarray]:
        """Raw samples (ms) of row `index` by name; ResultsError if they do not give its p95."""
        path, row = self.folder / f"run_{index + 1}.npz", self.rows.loc[index]
        packed = io.BytesIO(read_file(path, LARGEST_SAMPLES))
        with explained(path, "read"), zipfile.ZipFile(packed) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_SAMPLES:
                raise ValueError(f"unpacked, it is larger than {LARGEST_SAMPLES:,} bytes")
            samples = dict(np.load(packed, allow_pickle=False))
            for clock, p95 in (("host", row["host_p95"]), ("gpu", row["gpu_p95"])):
                if p95 > 0 and not np.isclose(np.quantile(samples[f"{clock}_ms"], 0.95), p95, 1e-6):
                    raise ValueError(f"{clock}_ms do not give the p95 of their row, {p95} ms")
        return samples


def read_session(folder: str | Path) -> StoredSession:
    """Read a complete session's folder; its samples are read by `StoredSession.samples`."""
    folder, found = Path(folder), []
    for name in ("session", "verdict", "environment", "parameters"):
        with explained(path := folder / f"{name}.json", "read"):
            found.append(TypeAdapter(dict).validate_json(read_file(path)))
            if found[0].get("state") != "complete":
                raise ValueError("its notebook has not run to the end")
    (_, verdict, environment, parameters), rows = found, read_results(folder / "results.csv")
    rows = from_csv(csv_text(rows.to_dict("records"), COLUMNS))  # those it lacks are empty
    files = [os.fsencode(path.name).decode("utf-8", "replace") for path in folder.iterdir()]
    table = read_file(folder / "comparaison.md") if "comparaison.md" in files else b""
    with explained(folder, "read"):
        if rows.empty or not verdict["sentences"]:
            raise ValueError("without runs or verdict")
        for part in ("software", "gpu", "cuda", "cpu", "git"):  # an older session wrote less
            environment[part] = defaultdict(lambda: None, environment.get(part) or {})
        accepted = {True: "yes", False: "no"}.get(verdict.get("accepted"), "")  # an older session
        return StoredSession(
            folder=folder,
            name=folder.resolve().name,
            dataset=rows["dataset"].iloc[0],
            rows=rows,
            sentences=tuple(map(str, verdict["sentences"])),
            outcome=str(verdict.get("outcome") or accepted),
            environment=environment,
            parameters=parameters | {"model": str(parameters.get("model") or "")},
            comparison=table.decode("utf-8"),
            files=tuple(sorted(name for name in files if not name.startswith("."))),
        )


def read_results(path: str | Path) -> pd.DataFrame:
    """Read a results CSV by column name: str, int64, float64 (NaN where empty), datetimes.

    An older one has no `model` and `accepted`. ResultsError where it holds no results.
    """
    with explained(path, "read"):
        return from_csv(read_file(path).decode("utf-8-sig"))  # a spreadsheet adds a mark
