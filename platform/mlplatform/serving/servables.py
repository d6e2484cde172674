"""What is served, by name, version and label, as TensorFlow Serving has it.

Enters: where each version of each model is, and what a client names.  Leaves: the model.  What may
be asked for is what was given here: a name that a client sends is looked up and never becomes a
path.

TensorFlow works in one thread beside the loop's, with one thread an operation: a caller with much
to compute waits for others like it, and leaves the loop to answer.  A model is loaded when it is
first asked for, or all of them by `load`.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore
from typing import TypeVar

from mlplatform.errors import InvalidArgument, NotFound
from mlplatform.serving.admission import TooMany
from mlplatform.serving.servable import Servable
from mlplatform.serving.signature import MAX_TEXT
from mlplatform.serving.status import State, VersionStatus

MAX_WAITING = 16  # requests, with the one that is computed

T = TypeVar("T")


@dataclass(frozen=True)
class ModelSpec:
    """Which model is asked for: of one version, of what a label points at, else the latest."""

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        name = self.name[:MAX_TEXT]
        return f"Latest({name})" if self.version is None else f"Specific({name}, {self.version})"


class Servables:
    """All models that are served."""

    def __init__(
        self,
        paths: Mapping[str, Mapping[int, Path]],
        labels: Mapping[str, int],
        states: Callable[[], Mapping[int, VersionStatus]] = dict,
    ) -> None:
        """
        Args:
            paths: of SavedModels, by model and version.
            labels: what each of them points at.
            states: of versions, now; one of `paths` that it does not have is available.
        """
        self._models = {
            name: {number: Servable(name, number, path) for number, path in versions.items()}
            for name, versions in paths.items()
        }
        self._labels = dict(labels)
        self._states = states
        self._thread = ThreadPoolExecutor(1, "servables")
        self._room = BoundedSemaphore(MAX_WAITING)

    def find(self, spec: ModelSpec) -> Servable:
        """
        Raises:
            NotFound: there is no such model or version.
            InvalidArgument: there is no such label.
        """
        spec = self._resolved(spec)
        versions = self._models.get(spec.name, {})
        number = max(versions, default=None) if spec.version is None else spec.version
        if number is None or number not in versions:
            raise NotFound(f"Servable not found for request: {spec}")
        return versions[number]

    def status(self, spec: ModelSpec) -> dict[int, VersionStatus]:
        """The state of the version that is asked for, else of all; the latest first.

        Raises:
            NotFound: there is no such model or version.
            InvalidArgument: there is no such label.
        """
        spec = self._resolved(spec)
        name = spec.name[:MAX_TEXT]
        if spec.name not in self._models:
            raise NotFound(f"Could not find any versions of model {name}")
        available = dict.fromkeys(self._models[spec.name], VersionStatus(State.AVAILABLE))
        found = {**available, **self._states()}
        if spec.version is None:
            return dict(sorted(found.items(), reverse=True))
        if spec.version not in found:
            raise NotFound(f"Could not find version {spec.version} of model {name}")
        return {spec.version: found[spec.version]}

    def load(self) -> None:
        """Load every model, so that no request waits for it; to be called before any is asked for.

        Raises:
            PlatformError: one cannot be loaded.
        """
        for versions in self._models.values():
            for servable in versions.values():
                _ = servable.signature_defs, servable.model

    async def run(self, work: Callable[[], T]) -> T:
        """Do what takes a servable, in TensorFlow's thread; what nobody waits for is not begun.

        Raises:
            TooMany: as many as may wait do.
        """
        if not self._room.acquire(blocking=False):
            raise TooMany(f"{MAX_WAITING} requests wait for models already", retry_after_s=1.0)
        future = self._thread.submit(work)
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the thread, when it has done what waits; nothing may be asked for from then on."""
        self._thread.shutdown()

    def _resolved(self, spec: ModelSpec) -> ModelSpec:
        if spec.label is None:
            return spec
        if spec.label not in self._labels:
            label = spec.label[:MAX_TEXT]
            raise InvalidArgument(f"Unrecognized servable version label: {label}")
        return ModelSpec(spec.name, self._labels[spec.label])
