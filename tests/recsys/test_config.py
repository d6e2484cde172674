"""A run's configuration, checked whole before anything starts."""

from pathlib import Path

import pytest

from mlplatform.errors import InvalidArgument, NotFound
from recsys.config import CONFIGS, load_config

WORLD = "world: {initial_apps: 500, initial_users: 100}\n"


def refusal(tmp_path: Path, content: str | bytes) -> str:
    """The message that a file of this content is refused with, as one line."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidArgument) as refused:
        load_config(str(path))
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "apps", "users"),
    [("tiny", 4_860, 6_000), ("small", 48_600, 40_000), ("full", 993_000, 195_000)],
)
def test_the_shipped_configurations_load(name: str, apps: int, users: int) -> None:
    config = load_config(name)
    assert (config.world.initial_apps, config.world.initial_users) == (apps, users)


def test_every_shipped_file_is_one_of_the_three() -> None:
    assert sorted(path.name for path in CONFIGS.iterdir()) == [
        "full.yaml", "small.yaml", "tiny.yaml",
    ]  # fmt: skip


def test_the_full_configuration_ends_with_a_million_apps() -> None:
    config = load_config("full")
    assert config.world.apps_by(config.days.evaluate) == 1_000_000


def test_a_file_by_path_loads_and_keeps_the_defaults_it_does_not_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(WORLD + "days: {warm_up: 2, training: 5}\n")
    config = load_config(str(path))
    assert list(config.days.train) == [2, 3, 4, 5, 6]
    assert config.days.evaluate == 7
    assert config.ranking.kind == "wide_deep"


def test_an_unknown_key_is_named_with_what_it_held(tmp_path: Path) -> None:
    message = refusal(tmp_path, WORLD + "retrieval: {epoch: 33}\n")
    assert message.startswith("retrieval.epoch: ")
    assert "not permitted" in message
    assert "(got '33')" in message


def test_an_unknown_section_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, WORLD + "retreival: {}\n").startswith("retreival: ")


def test_an_unknown_key_deep_in_the_world_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, "world: {behaviour: {tasty: 4}}\n").startswith(
        "world.behaviour.tasty: "
    )


def test_a_value_of_the_wrong_type_is_named_with_what_came(tmp_path: Path) -> None:
    message = refusal(tmp_path, WORLD + "retrieval: {batch_size: many}\n")
    assert message.startswith("retrieval.batch_size: ")
    assert "integer" in message
    assert "'many'" in message


@pytest.mark.parametrize(
    ("section", "key", "value", "limit"),
    [
        ("days", "training", "1", "2"),
        ("days", "warm_up", "0", "1"),
        ("retrieval", "learning_rate", "0", "0"),
        ("retrieval", "learning_rate", ".nan", "0"),
        ("index", "leaves", "0", "1"),
        ("ranking", "wide_buckets", "1023", "1024"),
        ("evaluation", "installs", "49", "50"),
        ("evaluation", "requests", "-7", "50"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_limit_and_what_came(
    tmp_path: Path, section: str, key: str, value: str, limit: str
) -> None:
    message = refusal(tmp_path, f"{WORLD}{section}: {{{key}: {value}}}\n")
    assert message.startswith(f"{section}.{key}: ")
    assert f"than or equal to {limit}" in message or f"greater than {limit}" in message
    assert f"(got '{value.removeprefix('.')}')" in message


def test_a_kind_of_ranker_that_there_is_not_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, WORLD + "ranking: {kind: xgboost}\n")
    assert message.startswith("ranking.kind: ")
    assert "wide_deep" in message
    assert "xgboost" in message


@pytest.mark.parametrize("line", ["seed: -1\n", "world: {seed: -1}\n"])
def test_a_negative_seed_is_refused_before_anything_starts(tmp_path: Path, line: str) -> None:
    # numpy's generators take no negative seed: a run would end in a stack trace.
    assert "seed: " in refusal(tmp_path, line if "world" in line else WORLD + line)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "days: {training: 0, warm_up: 0}\nindex: {leafs: 3}\n")
    for key in ("world: ", "days.training: ", "days.warm_up: ", "index.leafs: "):
        assert key in message


@pytest.mark.parametrize(
    "content",
    ["world: {initial_apps: 5", "a: b: c", "\tworld: 1", b"\xff\xfe\xfa", "a: *nobody", "x: \x00"],
)
def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path, content: str | bytes) -> None:
    assert refusal(tmp_path, content).startswith("expected YAML")


@pytest.mark.parametrize("content", ["seed: 2024-13-45\n", "seed: !!int twelve\n"])
def test_a_value_that_yaml_itself_cannot_build_is_refused(tmp_path: Path, content: str) -> None:
    assert refusal(tmp_path, WORLD + content)


@pytest.mark.parametrize(
    ("content", "received"), [("", "None"), ("- 1\n- 2\n", "[1, 2]"), ("words", "words")]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str, received: str) -> None:
    message = refusal(tmp_path, content)
    assert message.startswith("the file: ")
    assert received in message


@pytest.mark.parametrize("name", ["medium", "no/such/file.yaml", "tiny.yml", "", "."])
def test_a_configuration_that_there_is_not_is_answered_with_those_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound) as missing:
        load_config(name)
    message = str(missing.value)
    assert repr(name) in message
    assert "full, small, tiny" in message
    assert "\n" not in message
