"""Ratios of latencies to a reference, from interleaved rounds, with intervals and verdicts.

In every round each entry has one block of samples, in random order. The logarithm of a block's
median minus that of the reference in the same round is one difference: drift that lasts longer than
a round cancels. Their 20 % trimmed mean is the estimate: on an H100's host clock the rounds in
which the CPU changed its mode differ by far more than the others, and trimming them halves the
smallest difference that can be detected (on committed samples of an H100).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from helpers.stats import correlation_time

FASTER, SLOWER, SAME = "plus rapide", "plus lent", "pas de différence détectée"
TRIM = 0.2  # share of the rounds left out of the estimate at either end
MIN_ROUNDS = 20  # with fewer, a trimmed mean rests on a dozen values and its interval is a guess
CONFIDENCE, POWER = 0.95, 0.80
DRAWS, CHUNK = 2000, 250  # a chunk at a time, so that memory does not grow with the draws


def side_of_one(low: float, high: float) -> str:
    """FASTER, SLOWER or SAME: on which side of 1 a ratio's whole interval lies, if on any."""
    if low <= 1 <= high:
        return SAME
    return FASTER if high < 1 else SLOWER


@dataclass(frozen=True)
class Ratio:
    """Latency over the reference's; below 1 is faster.

    `low`, `high`: simultaneous 95 % interval, so that the verdict is already corrected for the
    number of comparisons. `detectable`: the relative difference that such a session finds with a
    chance of 80 %, after the same correction.
    """

    ratio: float
    low: float
    high: float
    detectable: float

    @property
    def verdict(self) -> str:
        """FASTER, SLOWER or SAME: see `side_of_one`."""
        return side_of_one(self.low, self.high)


def compare_rounds(
    block_ms: np.ndarray, confidence: float = CONFIDENCE, seed: int = 0, draws: int = DRAWS
) -> list[Ratio]:
    """Compare entries 1, 2, … with entry 0, the reference, all at once.

    Bootstrap-t over circular blocks of rounds, drawn jointly for all entries; the quantile of the
    largest |t| gives simultaneous intervals (Romano & Wolf 2005, Econometrica 73:1237). The blocks
    are as long as autocorrelation demands: none where entries react alike to drift, as the order is
    random, some where one waits for the CPU and another does not.

    Parameters
    ----------
    block_ms
        (rounds, entries) latency of each block, such as its median, in ms.

    Raises
    ------
    ValueError
        Fewer than two entries or MIN_ROUNDS rounds, or a latency that is not positive and finite.
    """
    block_ms = _checked(np.asarray(block_ms, dtype=float))
    differences = np.log(block_ms[:, 1:]) - np.log(block_ms[:, :1])
    estimate, error = trimmed_mean(differences)
    means, largest = _bootstrap(differences, estimate, np.random.default_rng(seed), draws)
    rounds, length = len(differences), block_length(differences)
    # Blocks of rounds show too little variance: that of the mean is missing in each autocovariance.
    widen = math.sqrt(rounds / (rounds - length + 1))
    half = widen * np.quantile(largest, confidence) * error
    found = half + stats.norm.ppf(POWER) * widen * means.std(axis=0)
    columns = (estimate, estimate - half, estimate + half, found)
    return [
        Ratio(math.exp(mean), math.exp(low), math.exp(high), math.expm1(detectable))
        for mean, low, high, detectable in zip(*columns, strict=True)
    ]


def trimmed_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trimmed mean over the rounds, the last axis but one, and its standard error (Yuen 1974)."""
    rounds = values.shape[-2]
    cut = int(TRIM * rounds)
    ordered = np.sort(values, axis=-2)
    low, high = ordered[..., [cut], :], ordered[..., [rounds - cut - 1], :]
    spread = np.clip(ordered, low, high).std(axis=-2, ddof=1)
    kept = ordered[..., cut : rounds - cut, :]
    return kept.mean(axis=-2), spread / ((1 - 2 * cut / rounds) * math.sqrt(rounds))


def block_length(differences: np.ndarray) -> int:
    """Rounds per block of the bootstrap for (rounds, comparisons) differences.

    Optimal for the variance of a mean of an AR(1) series of the same autocorrelation time
    (Carlstein 1986, Ann. Stat. 14:1171); the longest that any comparison needs.
    """
    rounds = len(differences)
    tau = max(correlation_time(column).tau for column in differences.T)
    best = (math.sqrt(6) / 4 * (tau - 1 / tau)) ** (2 / 3) * rounds ** (1 / 3)
    return min(max(math.ceil(best), 1), rounds // 5)


def placement_bound(ratios: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Relative difference that two copies of one model rarely exceed, from ratios of its copies.

    A t prediction limit: the reference and its copies are draws of one level, a variant of the same
    speed would be another. The largest difference seen would be no such limit: with two copies a
    new one exceeds it 29 times in 100. One copy tells little, and its limit is wide.
    """
    levels = [0.0, *map(math.log, ratios)]
    reach = stats.t.isf((1 - confidence) / 2, len(ratios))
    return math.expm1(reach * math.sqrt(2) * float(np.std(levels, ddof=1)))


def _bootstrap(differences, estimate, generator, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the draws' (draws, comparisons) estimates and (draws,) largest |t|."""
    rounds, length = len(differences), block_length(differences)
    means, largest = [], []
    for first in range(0, draws, CHUNK):
        size = (min(CHUNK, draws - first), -(-rounds // length), 1)
        starts = generator.integers(rounds, size=size)
        indices = (starts + np.arange(length)).reshape(size[0], -1)[:, :rounds] % rounds
        drawn, error = trimmed_mean(differences[indices])
        excess = np.abs(drawn - estimate)
        # Where clocks tick coarsely all differences of a draw may be one: no error, no excess.
        t = np.divide(excess, error, out=np.zeros_like(excess), where=error > 0)
        means.append(drawn)
        largest.append(t.max(axis=1))
    return np.concatenate(means), np.concatenate(largest)


def _checked(block_ms: np.ndarray) -> np.ndarray:
    if block_ms.ndim != 2 or block_ms.shape[1] < 2 or len(block_ms) < MIN_ROUNDS:
        raise ValueError(
            f"block_ms has shape {block_ms.shape}: at least {MIN_ROUNDS} rounds are needed, of the "
            "reference first and one entry to compare with it (raise runs or measure_iters)"
        )
    if not (np.isfinite(block_ms).all() and (block_ms > 0).all()):
        raise ValueError("block_ms holds a latency that is not positive and finite")
    return block_ms
