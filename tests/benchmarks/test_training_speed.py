"""The benchmark of training: that the plain scripts are the same models, trained the same way."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import training_speed
from benchmarks.contestants import Contestant, ours, plain_ranker, plain_towers
from benchmarks.result import Result
from benchmarks.store import Store
from benchmarks.training_tasks import Task, ranker, towers

STEPS = 6


def give_fields(embedding: Any, fields: Any) -> None:
    """Cut our one table into the script's tables, a feature each."""
    table, start = embedding.table.numpy(), 0
    for layer in fields.tables.values():
        layer.set_weights([table[start : start + layer.input_dim]])
        start += layer.input_dim
    assert start == len(table)


def give_dense(layer: Any, *halves: Any) -> None:
    """A layer over several inputs side by side has the kernels of ours one below the other."""
    biases = [half.bias.numpy() for half in halves if half.bias is not None]
    layer.set_weights([np.concatenate([half.kernel.numpy() for half in halves]), *biases])


def give_towers(model: Any, script: Any) -> None:
    give_fields(model.request_fields, script.request)
    give_fields(model.history.embedding, script.owned.fields)
    give_fields(model.app_fields, script.fields)
    for own, layer in zip((model.query_hidden, model.query_out), script.query.layers, strict=True):
        give_dense(layer, own)
    for own, layer in zip((model.app_hidden, model.app_out), script.app.layers, strict=True):
        give_dense(layer, own)


def give_ranker(model: Any, script: Any) -> None:
    wide, deep, part = script.linear_model, script.dnn_model, model.parts["deep"]
    wide.table.set_weights([model.parts["wide"].weights.numpy()[:, None]])
    give_fields(part.request_fields, deep.request)
    give_fields(part.history.embedding, deep.owned.fields)
    give_fields(part.app_fields, deep.app)
    give_fields(part.impression_fields, deep.impression)
    give_fields(part.place, deep.place)
    give_dense(deep.user_factor, part.user_factor)
    give_dense(deep.app_factor, part.app_factor)
    give_dense(deep.first, part.user_half, part.app_half, part.impression_half, part.product_half)
    give_dense(deep.second, part.second)
    deep.out.set_weights([part.out.kernel.numpy(), model.bias.numpy()[None]])


def scramble(task: Task) -> None:
    """Random weights everywhere, so that nothing is silent."""
    rng = np.random.default_rng(5)
    for variable in task.model.trainable_variables:
        variable.assign(0.2 * rng.standard_normal(variable.shape).astype(np.float32))


def losses(contestant: Contestant) -> list[float]:
    return [float(contestant.loss(batch)) for batch in contestant.inputs()]


@pytest.mark.parametrize(
    ("make", "enter", "give"),
    [
        (towers, plain_towers, give_towers),
        (ranker, lambda task: plain_ranker(task, by_slate=False), give_ranker),
        (ranker, lambda task: plain_ranker(task, by_slate=True), give_ranker),
    ],
    ids=["towers", "ranker by row", "ranker by slate"],
)
def test_a_plain_script_has_our_losses_before_and_after_training(
    store: Store,
    make: Callable[[Store, int], Task],
    enter: Callable[[Task], Contestant],
    give: Callable[[Any, Any], None],
) -> None:
    task = make(store, STEPS)
    scramble(task)
    our, plain = ours(task), enter(task)
    give(task.model, plain.model)
    assert our.parameters == plain.parameters
    assert our.rows == plain.rows

    before = losses(our)
    assert len(before) == STEPS
    np.testing.assert_allclose(losses(plain), before, rtol=1e-5)

    told = {"ours": 0, "plain": 0}
    for name, contestant in (("ours", our), ("plain", plain)):

        def advance(name: str = name) -> None:
            told[name] += 1

        contestant.train(advance)
    assert told == {"ours": STEPS, "plain": STEPS}
    after = losses(our)
    assert np.mean(after) < 0.9 * np.mean(before)
    np.testing.assert_allclose(losses(plain), after, rtol=1e-4)


def test_the_clock_starts_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    warm_up = training_speed.WARM_UP
    # A second a step at first, then a tenth of one.
    times = iter([*range(1, warm_up + 1), *(warm_up + 0.1 * n for n in range(1, 6))])
    monkeypatch.setattr(training_speed.time, "perf_counter", lambda: next(times))
    clock = training_speed.Clock(rows_a_step=30)
    for _ in range(warm_up + 5):
        clock.advance()
    assert clock.speed == pytest.approx(300)


def test_the_figures_of_a_model(store: Store) -> None:
    result = Result(settings={})
    training_speed.measure_model(result, "towers", store, steps=2, rounds=1)
    figures = {name.removeprefix("towers: "): n for name, n in result.figures.items()}
    ratio = figures["rows a second, ours"] / figures["rows a second, plain"]
    assert figures["ours, times plain"] == pytest.approx(ratio)
    assert result.limits == {"towers: ours, times plain": ("least", training_speed.MUST)}
    for script in ("ours", "plain"):
        for phase in ("input", "forward"):
            assert figures[f"ms a batch, {phase}, {script}"] > 0
        for phase in ("backward", "optimizer"):  # differences of measured times
            assert np.isfinite(figures[f"ms a batch, {phase}, {script}"])
