"""Which version is in service, for stages that serve it, follow it or judge by it.

Enters: the artifact of a push.  Leaves: the registry's version.
"""

from pathlib import Path

from mlplatform.artifacts import read_json, to_json
from mlplatform.pipeline import Context
from mlplatform.registry.registry import Registry, Version

FILE = "version.json"


def write_version(artifact: Path, version: Version) -> None:
    (artifact / FILE).write_bytes(to_json({"version": version.number}))


def current_version(registry: Path, context: Context) -> Version:
    """The version that the last push, be it of another day, brought into service."""
    return Registry(registry).version(read_json(context.inputs["push"] / FILE)["version"])
