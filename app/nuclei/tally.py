"""What do the pixels of each nucleus add up to?

Kernels behind `instances.describe`: positions are summed run by run, class probabilities pixel by pixel, then each
nucleus' row of the table is worked out.
"""

from __future__ import annotations

import numpy as np

from app.nuclei.jit import Array, kernel, prefetch

LINE = 16  # float32 that come from memory together
FIELD = 9  # bits of a counter, seven of which lie in one word
_0, _1, _2, _3, _4, _5, _6 = (np.uint64(1 << FIELD * i) for i in range(7))


@kernel
def tally(
    first: Array, start: Array, stop: Array, label: Array, type_prob: Array,
    origin: Array, box: Array, moments: Array, votes: Array, probs: Array,
) -> None:  # fmt: skip
    """Fill the sums of `instances.Sums`, zeros before (`origin` -1), from the runs of a label map."""
    classes = type_prob.shape[2]
    cells = type_prob.reshape(-1)
    rows = len(first) - 1
    for r in range(rows):
        if r + 1 < rows:
            _fetch_row(first, start, stop, r + 1, type_prob.shape[1], classes, cells)
        for k in range(first[r], first[r + 1]):
            i = label[k] - 1
            _add_run(r, start[k], stop[k], i, origin, box, moments)
            if classes == 7:
                _vote_seven(type_prob, r, start[k], stop[k], i, votes, probs)
            else:
                _vote(type_prob, r, start[k], stop[k], i, votes, probs)


@kernel
def _fetch_row(first: Array, start: Array, stop: Array, r: int, width: int, classes: int, cells: Array) -> None:
    """Ask for a row's probabilities a row ahead: nuclei are too short for the machine to foresee where it goes on."""
    for k in range(first[r], first[r + 1]):
        for at in range(classes * (r * width + start[k]), classes * (r * width + stop[k]), LINE):
            prefetch(cells, at)


@kernel
def _add_run(r: int, begin: int, end: int, i: int, origins: Array, boxes: Array, all_moments: Array) -> None:
    origin, box, moments = origins[i], boxes[i], all_moments[i]
    if origin[0] < 0:
        origin[0], origin[1] = r, begin
        box[0], box[1], box[2] = begin, r, end
    box[0], box[2], box[3] = min(box[0], begin), max(box[2], end), r + 1
    y, a, b = r - origin[0], begin - origin[1], end - origin[1]
    n = b - a
    x = (a + b - 1) * n // 2
    moments[0] += n
    moments[1] += x
    moments[2] += y * n
    # Sum of squares below b less that below a; right for negative a and b too.
    moments[3] += ((b - 1) * b * (2 * b - 1) - (a - 1) * a * (2 * a - 1)) // 6
    moments[4] += y * y * n
    moments[5] += y * x


@kernel
def _vote(type_prob: Array, r: int, begin: int, end: int, i: int, votes: Array, probs: Array) -> None:
    for c in range(begin, end):
        best, highest = 0, type_prob[r, c, 0]
        for k in range(probs.shape[1]):
            value = type_prob[r, c, k]
            probs[i, k] += value
            if value > highest:
                best, highest = k, value
        votes[i, best] += 1


@kernel
def _vote_seven(maps: Array, r: int, begin: int, end: int, i: int, all_votes: Array, all_probs: Array) -> None:
    """As `_vote` for seven channels, with the sums and votes of a run in registers."""
    type_prob, votes, probs = maps[r], all_votes[i], all_probs[i]
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = np.float32(0)
    for chunk in range(begin, end, 1 << FIELD - 1):  # no more than a counter can count
        counters = np.uint64(0)
        for c in range(chunk, min(end, chunk + (1 << FIELD - 1))):
            p0, p1, p2, p3 = type_prob[c, 0], type_prob[c, 1], type_prob[c, 2], type_prob[c, 3]
            p4, p5, p6 = type_prob[c, 4], type_prob[c, 5], type_prob[c, 6]
            # What a pixel adds to the counters, chosen without a branch that depends on it.
            vote = _1 if p1 > p0 else _0
            highest = p1 if p1 > p0 else p0
            vote = _2 if p2 > highest else vote
            highest = p2 if p2 > highest else highest
            vote = _3 if p3 > highest else vote
            highest = p3 if p3 > highest else highest
            vote = _4 if p4 > highest else vote
            highest = p4 if p4 > highest else highest
            vote = _5 if p5 > highest else vote
            highest = p5 if p5 > highest else highest
            counters += _6 if p6 > highest else vote
            s0, s1, s2, s3, s4, s5, s6 = s0 + p0, s1 + p1, s2 + p2, s3 + p3, s4 + p4, s5 + p5, s6 + p6
        for k in range(7):
            votes[k] += np.int64(counters >> np.uint64(FIELD * k)) & (1 << FIELD) - 1
    probs[0], probs[1], probs[2], probs[3] = probs[0] + s0, probs[1] + s1, probs[2] + s2, probs[3] + s3
    probs[4], probs[5], probs[6] = probs[4] + s4, probs[5] + s5, probs[6] + s6


@kernel
def conclude(
    origin: Array, moments: Array, votes: Array, probs: Array, scale_x: float, scale_y: float,
    kind: Array, type_prob: Array, class_probs: Array, centroid: Array, area: Array, covariance: Array,
) -> None:  # fmt: skip
    """The columns that `instances.describe` documents, from sums."""
    classes = class_probs.shape[1]
    for i in range(len(kind)):
        total, most, best, likely = 0.0, 0, 0, 1
        for k in range(1, classes + 1):
            total += probs[i, k]
            if votes[i, k] > most:
                most, best = votes[i, k], k
            if probs[i, k] > probs[i, likely]:
                likely = k
        for k in range(classes):
            class_probs[i, k] = probs[i, k + 1] / total if total > 0 else 1 / classes
        kind[i] = best if best else likely
        type_prob[i] = class_probs[i, kind[i] - 1]
        n = np.float64(moments[i, 0])
        x, y = moments[i, 1] / n, moments[i, 2] / n
        centroid[i, 0] = (x + origin[i, 1] + 0.5) * scale_x
        centroid[i, 1] = (y + origin[i, 0] + 0.5) * scale_y
        area[i] = n * (scale_x * scale_y)
        covariance[i, 0] = (moments[i, 3] / n - x * x + 1 / 12) * (scale_x * scale_x)
        covariance[i, 1] = (moments[i, 4] / n - y * y + 1 / 12) * (scale_y * scale_y)
        covariance[i, 2] = (moments[i, 5] / n - x * y) * (scale_x * scale_y)
