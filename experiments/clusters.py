"""Cluster shares: how much of a batch of texts says nearly the same. What proposers are held to variety by.

R-Zero, Huang et al., arXiv:2508.05004, and Agent0, Xia et al., arXiv:2511.16043, as in their released code: the
distance of two texts is 1 - BLEU (Papineni et al., 2002) over words between white space, smoothed (Chen and Cherry,
2014, method 1: 0.1 in place of no match), the earlier text being the hypothesis; clusters are agglomerative with
average linkage, and merge below a distance of 0.5.

BLEU depends on counts alone: matches of 1 to 4 words and both lengths. They are counted for many pairs at once, and
each combination that occurs is computed once, by the very formula; so distances equal those of a loop over pairs to the
last digit. Texts that share no word have a BLEU of exactly 0.

Departure: equal texts of one to three words are at distance 0; by the formula they would not be near each other, and a
proposer that repeats a short question would go free. An empty text is like no other.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array

THRESHOLD = 0.5
ORDERS = 4
_UNMATCHED = 0.1
_PAIRS = 1 << 20
"""Whose counts are held at once."""


def shares(texts: Sequence[str]) -> list[float]:
    """For each text the share of all texts that its cluster holds: 1/n to 1. Takes n²/2 times 8 bytes."""
    found = labels(texts)
    sizes = Counter(found)
    return [sizes[label] / len(found) for label in found]


def labels(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """For each text the number of its cluster, counted from 0 in the order in which clusters are first seen."""
    if len(texts) < 2:
        return [0] * len(texts)
    # fcluster merges up to and at a height; clusters must merge below the threshold only.
    height = np.nextafter(threshold, -np.inf)
    numbers = fcluster(linkage(distances(texts), "average"), height, "distance").tolist()
    seen = {number: i for i, number in enumerate(dict.fromkeys(numbers))}
    return [seen[number] for number in numbers]


def distances(texts: Sequence[str]) -> np.ndarray:
    """Of all pairs: (n (n - 1) / 2,) float64, 0 to 1, in the order (0, 1), (0, 2), …, (1, 2), … as scipy has it."""
    words = [text.split() for text in texts]
    lengths = np.array([len(text) for text in words], dtype=np.int64)
    grams = [_grams(words, order) for order in range(1, ORDERS + 1)]
    step = max(1, _PAIRS // max(1, len(texts)))
    parts = [_rows(grams, lengths, start, start + step) for start in range(0, len(texts), step)]
    return 1 - np.concatenate(parts) if parts else np.zeros(0)


def bleu(matches: Sequence[int], hypothesis: int, reference: int) -> float:
    """BLEU of one text against another, 0 to 1.

    Args:
        matches: runs of 1, 2, 3 and 4 words that both have, each as often as both have it.
        hypothesis: words of the one.
        reference: words of the other.
    """
    if not matches[0]:
        return 0.0
    if hypothesis == reference < ORDERS and matches[hypothesis - 1]:
        return 1.0
    runs = [max(1, hypothesis - order) for order in range(ORDERS)]
    precisions = [(matched or _UNMATCHED) / of for matched, of in zip(matches, runs, strict=True)]
    brevity = 1.0 if hypothesis > reference else math.exp(1 - reference / hypothesis)
    return brevity * math.exp(math.fsum(math.log(precision) / ORDERS for precision in precisions))


def _grams(texts: Sequence[Sequence[str]], order: int) -> csr_array:
    """(n, columns) of 0 and 1. A run of words that a text has twice is two columns, so that a product of two rows
    counts what both have, as often as both have it."""
    columns: dict[tuple[tuple[str, ...], int], int] = {}
    indices, ends = [], [0]
    for words in texts:
        times: Counter[tuple[str, ...]] = Counter()
        for gram in zip(*(words[i:] for i in range(order)), strict=False):
            indices.append(columns.setdefault((gram, times[gram]), len(columns)))
            times[gram] += 1
        ends.append(len(indices))
    shape = (len(texts), max(1, len(columns)))
    return csr_array((np.ones(len(indices), np.int32), np.array(indices, np.int64), np.array(ends)), shape=shape)


def _rows(grams: Sequence[csr_array], lengths: np.ndarray, start: int, stop: int) -> np.ndarray:
    """BLEU of the texts from start to stop with all later ones, in the order of `distances`."""
    later = np.triu(np.ones((len(lengths[start:stop]), len(lengths) - start), bool), 1)
    rows, columns = np.nonzero(later)
    counts = [(gram[start:stop] @ gram[start:].T).toarray()[rows, columns] for gram in grams]
    counts += [lengths[start:][rows], lengths[start:][columns]]
    near = np.flatnonzero(counts[0])
    found = np.zeros(len(rows))
    if len(near):
        table = [count[near].astype(np.int64) for count in counts]
        first, key = _distinct(table)
        scores = [bleu(row[:ORDERS], *row[ORDERS:]) for row in np.stack(table, 1)[first].tolist()]
        found[near] = np.array(scores)[key]
    return found


def _distinct(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Where each different row of a table stands first, and for each row which of these it equals."""
    key, size = np.zeros(len(columns[0]), np.int64), 1
    for column in columns:
        width = int(column.max()) + 1
        if size * width > np.iinfo(np.int64).max:
            key = np.unique(key, return_inverse=True)[1]
            size = len(key)
        key, size = key * width + column, size * width
    _, first, numbers = np.unique(key, return_index=True, return_inverse=True)
    return first, numbers
