"""The README's walks, done as they stand there: a feature is added, a model is added."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIG = """
world: {initial_apps: 990, new_apps_per_day: 10, initial_users: 3000, new_users_per_day: 20,
        requests_per_user_day: 3.0, organic_per_user_day: 0.4}
days: {warm_up: 2, training: 2}
retrieval: {batch_size: 128, negatives: 128, epochs: 2}
index: {leaves: 20, leaves_to_search: 15, reorder: 300}
ranking: {kind: factorized, batch_requests: 64, wide_buckets: 16384, epochs: 2}
evaluation: {installs: 500, queries: 100, requests: 8000, world_requests: 100, skew_requests: 100}
gate:
  thresholds:
  - {evaluation: ranking, figure: "AUC: system", above: 0.4, why: it has been trained for seconds}
"""


def block(heading: str, language: str) -> str:
    """The block of code in a section of the README."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A copy of the source with the walks done to it, and what its main job printed."""
    root = tmp_path_factory.mktemp("walks")
    for package in ("platform", "recsys", "data_gen"):
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    subprocess.run(
        ["git", "apply", "-"], input=block("Add a feature", "diff"), cwd=root, text=True, check=True
    )
    model = root / "recsys" / "models" / "rankers" / "factorized.py"
    model.write_text(block("Add a model", "python"))
    (root / "config.yaml").write_text(CONFIG)
    done = subprocess.run(
        [
            sys.executable, "-m", "recsys.cli", "run", "--config", "config.yaml",
            "--workspace", "workspace", "--json",
        ],
        cwd=root, env={"PYTHONPATH": f"{root}:{root / 'platform'}", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return root, json.loads(done.stdout)


def artifact(root: Path, stage: str) -> Path:
    (found,) = (root / "workspace" / "artifacts" / stage).iterdir()
    return found


def test_the_feature_is_in_the_rows_the_schema_the_transform_and_the_served_skew(
    extended: tuple[Path, dict[str, Any]],
) -> None:
    import pyarrow.parquet as pq

    root, _ = extended
    spans = artifact(root, "join_examples") / "spans" / "requests" / "day=003"
    counts = pq.read_table(spans)
    week, ever = (counts[name].to_numpy() for name in ("week_count", "history_count"))
    assert (week <= ever).all() and 0 < week.mean() < ever.mean()
    schema = (artifact(root, "infer_schema") / "requests" / "schema.pbtxt").read_text()
    assert 'name: "week_count"' in schema
    transform = json.loads((artifact(root, "analyze") / "transform.json").read_text())
    assert len(transform["boundaries"]["week_count"]) >= 1
    skew = json.loads((artifact(root, "compare_serving") / "skew.json").read_text())
    (found,) = [one for one in skew["report"]["features"] if one["name"] == "week_count"]
    assert found["match"] > 0.5 * skew["report"]["counts"]["matched"]  # the rest: since morning
    assert found["training_only"] == found["serving_only"] == 0


def test_the_model_is_trained_judged_and_served(extended: tuple[Path, dict[str, Any]]) -> None:
    root, printed = extended
    losses = json.loads((artifact(root, "train_ranker") / "loss.json").read_text())["ranker"]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert printed["figures"]["AUC: system"]["value"] > 0.55
    answers = printed["answers"]
    assert all(len(one["answer"]["apps"]) == 5 for one in answers)
    state = artifact(root, "train_ranker") / "states" / "ranker" / "rows.json"
    tables = json.loads(state.read_text())["tables"]
    assert set(tables) == {"parts.factorized.user.table", "parts.factorized.item.table"}
    assert np.isfinite([point["loss"] for point in losses]).all()
