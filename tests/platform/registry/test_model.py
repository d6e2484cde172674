"""A registry does what a list and a few stacks would do, whatever is asked of it in what order."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.errors import FailedPrecondition, NotFound
from mlplatform.registry.registry import Registry
from tests.platform.registry.bundles import files_below, push

BUNDLES, LABELS = ["a", "b", "c", "d", "e", "f"], ["stable", "canary"]
OPERATIONS = st.one_of(
    st.tuples(st.just("push"), st.sampled_from(BUNDLES), st.sampled_from(LABELS)),
    st.tuples(st.just("set"), st.integers(1, 7), st.sampled_from(LABELS)),
    st.tuples(st.just("rollback"), st.none() | st.integers(1, 7), st.sampled_from(LABELS)),
    st.tuples(st.just("gc"), st.integers(1, 3), st.just("")),
)


@dataclass
class Model:
    """bundles: by version, None for a removed one.  stacks: where a label stood, and stands."""

    bundles: list[str | None] = field(default_factory=list)
    stacks: dict[str, list[int]] = field(default_factory=dict)

    def complete(self) -> list[int]:
        return [n for n, bundle in enumerate(self.bundles, 1) if bundle is not None]

    def push(self, bundle: str, label: str) -> int:
        if bundle not in self.bundles:
            self.bundles.append(bundle)
        number = self.bundles.index(bundle) + 1
        self.put(label, number)
        return number

    def put(self, label: str, number: int) -> None:
        stack = self.stacks.setdefault(label, [])
        if not stack or stack[-1] != number:
            stack.append(number)

    def back(self, label: str, to: int | None) -> int | None:
        """Unwind the stack to where a rollback ends; None, and no change, if that is nowhere."""
        stack = self.stacks.get(label, [])
        if not stack or stack[-1] == to:
            return stack[-1] if stack else None
        for depth in range(len(stack) - 1, 0, -1):
            number = stack[depth - 1]
            if number in self.complete() and number != stack[-1] and to in (None, number):
                del stack[depth:]
                return number
        return None

    def gc(self, keep: int) -> list[int]:
        needed = set(self.complete()[-keep:])
        for label, stack in self.stacks.items():
            needed.add(stack[-1])
            rest = Model(self.bundles, {label: [*stack]})
            needed.add(rest.back(label, None) or 0)
        doomed = [number for number in self.complete() if number not in needed]
        for number in doomed:
            self.bundles[number - 1] = None
        return doomed


@settings(max_examples=25, deadline=None)
@given(st.lists(OPERATIONS, min_size=4, max_size=14))
def test_any_sequence_ends_as_the_model_does(operations: list[tuple[str, object, str]]) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "registry"
        registry = Registry(root)
        for name, value, label in operations:
            if name == "push":
                assert isinstance(value, str)
                version = push(root, Path(folder) / value, label)
                assert version.number == model.push(value, label)
            elif name == "set":
                assert isinstance(value, int)
                try:
                    registry.set_label(label, value)
                except NotFound:
                    assert value not in model.complete()
                else:
                    model.put(label, value)
            elif name == "rollback":
                assert value is None or isinstance(value, int)
                expected = model.back(label, value)
                try:
                    assert registry.rollback(label, value).number == expected
                except (FailedPrecondition, NotFound):
                    assert expected is None
            else:
                assert isinstance(value, int)
                assert registry.gc(value) == model.gc(value)
            assert [version.number for version in registry.list()] == model.complete()
            assert registry.labels() == {name: stack[-1] for name, stack in model.stacks.items()}
        for version in registry.list():
            registry.verify(version)
            weights = (version.path / "model" / "weights").read_text()
            assert weights == model.bundles[version.number - 1]
        left = {name for name in files_below(root) if name.startswith("versions/")}
        assert left == {f"versions/{number}" for number in model.complete()}
