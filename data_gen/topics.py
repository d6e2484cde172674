"""The hidden space of topics that tastes and apps live in.

Every category has a centre and every tag a direction near its category's centre; an app's topic
and a user's taste are unit vectors made from tags plus noise, so category and tags are
observable, noisy proxies of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_gen import keyed, marginals
from data_gen.words import TAGS_BY_CATEGORY

DIMENSIONS = 16
TAGS_PER_CATEGORY = 8


@dataclass(frozen=True)
class TopicSpace:
    """`centres [categories, 16]`, `tags [tags, 16]` float32, unit length; `tag_share [tags]`."""

    centres: NDArray[np.float32]
    tags: NDArray[np.float32]
    tag_share: NDArray[np.float64]

    @classmethod
    def build(cls, seed: int) -> "TopicSpace":
        n_categories = len(marginals.categories())
        n_tags = n_categories * TAGS_PER_CATEGORY
        dims = np.arange(DIMENSIONS)
        centres = unit(keyed.normal(seed, "centre", np.arange(n_categories)[:, None], dims))
        offsets = unit(keyed.normal(seed, "tag", np.arange(n_tags)[:, None], dims))
        tags = unit(0.6 * np.repeat(centres, TAGS_PER_CATEGORY, axis=0) + 0.8 * offsets)
        within = 1.0 / (1.0 + np.arange(TAGS_PER_CATEGORY)) ** 0.6
        share = np.outer(marginals.per_category("share"), within / within.sum()).ravel()
        return cls(centres, tags, share / share.sum())


def tag_names() -> list[str]:
    """The name of every tag; a tag is an index into this list, its category index // 8."""
    return [tag for category in marginals.categories() for tag in TAGS_BY_CATEGORY[category]]


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Each row scaled to length one, as float32."""
    scaled = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled.astype(np.float32)
