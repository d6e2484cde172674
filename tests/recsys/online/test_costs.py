"""What fits into the time that is left."""

from recsys.online.costs import Costs


def test_what_was_never_measured_fits() -> None:
    assert Costs(["rank"]).fits("rank", 1000, 1e-6)


def test_a_way_fits_while_its_requests_cost_less_than_what_is_left() -> None:
    costs = Costs(["rank", "retrieve"])
    for _ in range(200):  # 0.9 ** 200 of the beginning is left
        costs.observe("rank", 10, 0.05)
    assert costs.fits("rank", 4, 0.021)  # 4 requests of 5 ms
    assert not costs.fits("rank", 4, 0.019)
    assert costs.fits("retrieve", 4, 0.001)


def test_nothing_fits_when_time_is_over() -> None:
    assert not Costs(["rank"]).fits("rank", 1, 0.0)
    assert not Costs(["rank"]).fits("rank", 1, -1.0)


def test_one_slow_batch_does_not_rule_a_way_out() -> None:
    costs = Costs(["rank"])
    for _ in range(100):
        costs.observe("rank", 1, 0.001)
    costs.observe("rank", 1, 0.1)  # the average becomes 0.9 * 1 + 0.1 * 100 = 10.9 ms
    assert costs.fits("rank", 1, 0.02)


def test_a_way_that_is_ruled_out_is_tried_again() -> None:
    costs = Costs(["rank"])
    for _ in range(100):
        costs.observe("rank", 1, 1.0)
    refusals = 0
    while not costs.fits("rank", 1, 0.1):
        refusals += 1
    assert refusals in (22, 23)  # 0.9 ** 22 = 0.098
