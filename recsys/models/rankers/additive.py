"""Linear in the app's own values, without a cross: what needs no knowledge of the user."""

from typing import ClassVar

from recsys.models.rankers.linear import Wide


class Additive(Wide):
    crosses: ClassVar[tuple[tuple[str, str], ...]] = ()


PARTS = (Additive,)
