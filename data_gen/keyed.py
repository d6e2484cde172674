"""Random draws keyed by what they are for, never by the order of calls.

The draw for (seed, purpose, user, request, app) is a hash of these keys.  Two policies that show
the same app in the same request therefore meet the same luck (common random numbers), and any
slice of the world can be made again alone and in parallel.

The mixer is SplitMix64's finaliser (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
Generators, OOPSLA 2014).
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def bits(seed: int, purpose: str, *keys: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for every element of the broadcast integer `keys`."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    state = np.asarray(int.from_bytes(digest, "little"), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            state = _mix((state ^ np.asarray(key).astype(np.uint64)) + _GOLDEN)
    return state


def uniform(seed: int, purpose: str, *keys: ArrayLike) -> NDArray[np.float64]:
    """Uniform on the open interval (0, 1)."""
    # 52 bits and a half: with 53 the largest would round to 1.
    mantissa = bits(seed, purpose, *keys) >> np.uint64(12)
    return (mantissa.astype(np.float64) + 0.5) * 2.0**-52


def normal(seed: int, purpose: str, *keys: ArrayLike) -> NDArray[np.float64]:
    """Standard normal, by the inverse of its distribution function."""
    z: NDArray[np.float64] = ndtri(uniform(seed, purpose, *keys))
    return z


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLIER_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLIER_2
    return z ^ (z >> np.uint64(31))
