"""Whether one picture shows another after turning, mirroring, cropping, framing or writing over it.

Pictures are compared as greys of 64 x 64, whatever their shape: turns and mirror images are then permutations, and a
crop or a frame is a scale and a shift of each axis. These four numbers are found by Gauss-Newton steps on a pyramid
(Lucas and Kanade 1981; Baker and Matthews 2004) with weights that disregard what does not fit, such as a caption.
What is similar afterwards is judged block by block, so that two pages or two glyphs of one layout do not pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 64
_BLOCK = 8
_STEPS = {16: 10, 32: 6, 64: 4}
"""Steps on each side of the pyramid."""
_STARTS = tuple(np.array([0, scale, 0, scale], dtype=np.float32) for scale in (0.0, -0.2, 0.2))
"""Where the first steps begin: as it is, inside, outside."""
_MAX_STRETCH = 0.08
"""How much the two axes may differ in scale: a picture squeezed into another shape is another picture."""
_MIN_OVERLAP = 0.4

Stack = NDArray[np.float32]


def turned(greys: NDArray[Any], how: int) -> NDArray[Any]:
    """(N, side, side) pictures in one of eight orientations: `how % 4` quarter turns, mirrored first from 4 on."""
    mirrored = greys[:, :, ::-1] if how >= 4 else greys
    return np.rot90(mirrored, how % 4, axes=(1, 2))


def similarity(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    aspect_a: NDArray[np.floating],
    aspect_b: NDArray[np.floating],
    *,
    inner: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How alike pairs of pictures are where they show the same, after the best alignment.

    Args:
        a: (N, 64, 64) greys.
        b: (N, 64, 64) greys.
        aspect_a: (N,) width over height of the pictures before they were made square.
        aspect_b: (N,).
        inner: (N, 64, 64) each, the places that are judged; a frame around both says nothing of what it holds.

    Returns:
        `(similarity, orientation)`: (N,) means of the correlation of blocks, weighted by how much they show, 0 to 1; 0
        where less than two fifths overlap or the axes would be stretched apart; and (N,) orientations of `b`,
        see `turned`.

    Example:
        >>> picture = np.random.default_rng(0).integers(0, 256, (1, 16, 16), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        >>> score, how = similarity(picture, picture[:, :, ::-1], np.ones(1), np.ones(1))
        >>> round(float(score[0]), 2), int(how[0])
        (1.0, 4)
    """
    n = len(a)
    inner_a, inner_b = inner or (np.ones(a.shape, dtype=bool), np.ones(b.shape, dtype=bool))
    near = _orientations(a.astype(np.float32), b.astype(np.float32))
    best, orientation = np.zeros(n), np.zeros(n, dtype=np.int64)
    likely = near >= np.sort(near, axis=1)[:, -2:-1]
    likely[:, 0] = True
    for how in range(8):
        if len(rows := np.flatnonzero(likely[:, how])):
            other = 1 / aspect_b[rows] if how % 2 else aspect_b[rows]
            x, y = a[rows].astype(np.float32), np.ascontiguousarray(turned(b[rows], how), dtype=np.float32)
            masks = inner_a[rows].astype(np.float32), np.ascontiguousarray(turned(inner_b[rows], how), dtype=np.float32)
            score = _aligned(x, y, masks, np.log(aspect_a[rows] / other))
            better = score > best[rows]
            best[rows[better]], orientation[rows[better]] = score[better], how
    return best, orientation


def _orientations(a: Stack, b: Stack) -> Stack:
    """(N, 8) how well each orientation of `b` fits `a`, or the middle of one fits the other."""
    edge = SIDE // 8
    middle = slice(edge, SIDE - edge)
    pairs = [(a, b), (a[:, middle, middle], b), (a, b[:, middle, middle])]
    small = [(_smaller(x, 16), _smaller(y, 16)) for x, y in pairs]
    near = [[_correlation(x, turned(y, how)) for how in range(8)] for x, y in small]
    return np.asarray(np.max(np.array(near), axis=0).T)


def _smaller(x: Stack, side: int) -> Stack:
    factor = x.shape[1] // side
    return np.asarray(x.reshape(len(x), side, factor, side, factor).mean(axis=(2, 4)))


def _correlation(x: Stack, y: Stack) -> NDArray[np.float32]:
    x, y = x - x.mean(axis=(1, 2), keepdims=True), y - y.mean(axis=(1, 2), keepdims=True)
    scale = np.sqrt((x * x).sum(axis=(1, 2)) * (y * y).sum(axis=(1, 2)))
    return np.asarray((x * y).sum(axis=(1, 2)) / np.maximum(scale, 1e-6))


def _aligned(x: Stack, y: Stack, inner: tuple[Stack, Stack], stretch: NDArray[np.floating]) -> NDArray[np.float64]:
    """Similarity of pairs of one orientation; `stretch` is the logarithm of their shapes' quotient."""
    n = len(x)
    still = np.zeros((n, 4), dtype=np.float32)
    p = _descend(np.concatenate([start + still for start in _STARTS]), np.tile(x, (3, 1, 1)), np.tile(y, (3, 1, 1)), 16)
    small, large = (np.tile(_smaller(z, 16), (3, 1, 1)) for z in (x, y))
    warped, valid, _ = _warp(p, large)
    fit = _by_blocks(small, warped, valid, 4)
    p = p.reshape(3, n, 4)[fit.reshape(3, n).argmax(axis=0), np.arange(n)]  # what fits best goes on
    p = _descend(_descend(p, x, y, 32), x, y, 64)
    return np.maximum(_score(p, x, y, inner, stretch), _score(still, x, y, inner, stretch))


def _descend(p: Stack, x: Stack, y: Stack, side: int) -> Stack:
    small, large = _smaller(x, side), _smaller(y, side)
    down, across = (np.asarray(slope) * np.float32(side / 2) for slope in np.gradient(large, axis=(1, 2)))
    for _ in range(_STEPS[side]):
        p = _step(p, small, large, across, down)
    return p


def _score(
    p: Stack, x: Stack, y: Stack, inner: tuple[Stack, Stack], stretch: NDArray[np.floating]
) -> NDArray[np.float64]:
    warped, judged, valid, _ = _warp(p, y, inner[1])
    # A pixel of `x` is exp(p) pixels of `y` on each axis, in units of their own sides.
    fits = np.abs(p[:, 1] - p[:, 3] - stretch) <= _MAX_STRETCH
    overlap = valid.mean(axis=(1, 2)) * np.minimum(1, np.exp(p[:, 1] + p[:, 3]))
    judged = valid * inner[0] * (judged > 0.99)
    return np.where(fits & (overlap >= _MIN_OVERLAP), _by_blocks(x, warped, judged), 0.0)


def _hats(shift: Stack, scale: Stack, side: int) -> tuple[Stack, NDArray[np.bool_], Stack]:
    """(N, side, side) interpolation weights of one axis, (N, side) which places lie inside, (side,) coordinates."""
    u = ((np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1).astype(np.float32)
    at = ((np.exp(scale)[:, None] * u + shift[:, None] + 1) * side - 1) / 2
    weights = np.maximum(0, 1 - np.abs(at[:, :, None] - np.arange(side, dtype=np.float32)))
    return weights, (at >= 0) & (at <= side - 1), u


def _warp(p: Stack, *stacks: Stack) -> tuple[Any, ...]:
    """Each stack as seen through the alignment, the mask of places inside, and the coordinates."""
    side = stacks[0].shape[1]
    across, inside_x, u = _hats(p[:, 0], p[:, 1], side)
    down, inside_y, _ = _hats(p[:, 2], p[:, 3], side)
    across = across.transpose(0, 2, 1)
    valid = (inside_y[:, :, None] & inside_x[:, None, :]).astype(np.float32)
    return (*(down @ stack @ across for stack in stacks), valid, u)


def _step(p: Stack, a: Stack, b: Stack, slope_x: Stack, slope_y: Stack) -> Stack:
    """One damped, robust Gauss-Newton step of the alignment of `b` to `a`."""
    seen, gx, gy, valid, u = _warp(p, b, slope_x, slope_y)
    weight = valid
    residual = _residual(a, seen, weight)[0]
    spread = np.sqrt((weight * residual**2).sum(axis=(1, 2)) / np.maximum(weight.sum(axis=(1, 2)), 1))
    weight = valid / (1 + (residual / np.maximum(spread, 1e-3)[:, None, None]) ** 2)  # after Geman and McClure
    residual, gain = _residual(a, seen, weight)
    gx, gy = gx * gain, gy * gain
    grow_x, grow_y = (
        np.exp(p[:, 1])[:, None, None] * u[None, None, :],
        np.exp(p[:, 3])[:, None, None] * u[None, :, None],
    )
    jacobian = np.stack([gx, gx * grow_x, gy, gy * grow_y], axis=1).reshape(len(a), 4, -1)
    weighted = jacobian * weight.reshape(len(a), 1, -1)
    normal = (weighted @ jacobian.transpose(0, 2, 1)).astype(np.float64)
    damping = 1e-3 * np.trace(normal, axis1=1, axis2=2)[:, None, None] / 4 + 1e-6
    right = weighted @ residual.reshape(len(a), -1, 1)
    move = np.linalg.solve(normal + damping * np.eye(4), right.astype(np.float64))[:, :, 0]
    return np.asarray(np.clip(p + np.clip(move, -0.15, 0.15), -0.45, 0.45), dtype=np.float32)


def _residual(a: Stack, seen: Stack, weight: Stack) -> tuple[Stack, Stack]:
    """What is left of `a` when the best gain and offset of `seen` are taken away, and the gain."""
    total = np.maximum(weight.sum(axis=(1, 2), keepdims=True), 1e-6)
    mean_a, mean_b = ((weight * x).sum(axis=(1, 2), keepdims=True) / total for x in (a, seen))
    da, db = a - mean_a, seen - mean_b
    gain = (weight * da * db).sum(axis=(1, 2), keepdims=True)
    gain = gain / np.maximum((weight * db * db).sum(axis=(1, 2), keepdims=True), 1e-3)
    gain = np.clip(gain, 0.2, 5.0)
    return da - gain * db, gain


def _by_blocks(a: Stack, b: Stack, valid: Stack, size: int = _BLOCK) -> NDArray[np.float64]:
    """Mean correlation of blocks that lie inside, weighted by the contrast of the picture that shows more there."""

    def blocks(x: Stack) -> Stack:
        n, per = len(x), x.shape[1] // size
        parts = x.reshape(n, per, size, per, size).transpose(0, 1, 3, 2, 4)
        return np.asarray(parts.reshape(n, per * per, -1))

    mask = blocks(valid)
    count = np.maximum(mask.sum(axis=2, keepdims=True), 1)
    inside = mask.mean(axis=2) > 0.5
    x, y = blocks(a), blocks(b)
    x, y = ((z - (z * mask).sum(axis=2, keepdims=True) / count) * mask for z in (x, y))
    share = count[:, :, 0]
    power_x, power_y = (x * x).sum(axis=2) / share, (y * y).sum(axis=2) / share
    alike = (x * y).sum(axis=2) / share / (np.sqrt(power_x * power_y) + 4.0)  # two grey levels squared are noise
    out = []
    for power in (power_x, power_y):
        weight = np.sqrt(power) * inside
        weight *= power > 4
        total = weight.sum(axis=1)
        out.append(np.where(total > 0, (weight * alike).sum(axis=1) / np.maximum(total, 1e-6), 0.0))
    return np.clip(np.maximum(*out), 0, 1).astype(np.float64)
