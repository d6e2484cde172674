"""Which versions are served: the labels', short of what cannot be loaded."""

from hypothesis import given
from hypothesis import strategies as st

from mlplatform.serving.generation import LONGEST_PAUSE_S, pause_s
from mlplatform.serving.rollout import TRIES, Failures, suspect, versions_to_serve

ORDER = ("first", "second", "third")
numbers = st.integers(1, 5)
served = st.dictionaries(st.sampled_from(ORDER), numbers)
labels = st.dictionaries(st.sampled_from((*ORDER, "other")), numbers)


@given(labels)
def test_the_labels_that_are_asked_for_are_served(labels: dict[str, int]) -> None:
    chosen = versions_to_serve(ORDER, labels, {}, set())
    assert chosen == {label: number for label, number in labels.items() if label != "other"}
    assert list(chosen) == [label for label in ORDER if label in labels]


def test_what_is_given_up_or_gone_stays_where_it_is_served() -> None:
    labels, served = {"first": 4, "second": 3}, {"first": 2, "third": 1}
    chosen = versions_to_serve(ORDER, labels, served, {4})
    assert chosen == {"first": 2, "second": 3, "third": 1}
    assert versions_to_serve(ORDER, labels, served, {3, 4}) == {"first": 2, "third": 1}


@given(labels, served, st.sets(numbers))
def test_nothing_that_is_given_up_is_begun(
    labels: dict[str, int], served: dict[str, int], given_up: set[int]
) -> None:
    for label, number in versions_to_serve(ORDER, labels, served, given_up).items():
        assert number == served.get(label) or number not in given_up


@given(labels.filter(bool), served, st.sets(numbers), st.booleans())
def test_failures_come_to_an_end_and_keep_no_good_version_out(
    labels: dict[str, int], served: dict[str, int], bad: set[int], named: bool
) -> None:
    """Loads fail for every version in `bad` that is not served; the worker may say which it was."""
    failures, tries = Failures(), 0
    while (chosen := versions_to_serve(ORDER, labels, served, failures.given_up())) != served:
        broken = [n for n in chosen.values() if n in bad and n not in served.values()]
        if broken:
            tries += 1
            failures.note(suspect(chosen, served, broken[0] if named else None), "broken")
        else:
            served = chosen
        assert tries <= TRIES * len(ORDER)
    if named:
        for label in ORDER:
            if label in labels and labels[label] not in bad:
                assert served[label] == labels[label]


def test_of_several_new_versions_the_last_label_s_is_suspected_first() -> None:
    assert suspect({"first": 2, "second": 3}, {"first": 1}, None) == 3
    assert suspect({"first": 2, "second": 3}, {"first": 1, "second": 3}, None) == 2
    assert suspect({"first": 2, "second": 3}, {"first": 1}, 2) == 2
    # What serves is above suspicion while there is something new.
    assert suspect({"first": 2, "second": 3}, {"first": 2}, 2) == 3
    assert suspect({"first": 2, "second": 3}, {"second": 2, "first": 3}, None) == 3


def test_a_version_is_given_up_after_three_failures_and_forgotten_with_its_label() -> None:
    failures = Failures()
    for _ in range(2):
        failures.note(4, "why")
    failures.note(5, "once", enough=True)
    assert failures.given_up() == {5} and not failures.may_try()
    failures.note(4, "why not")
    assert failures.given_up() == {4, 5} and failures.errors == {4: "why not", 5: "once"}
    failures.keep({4, 6})
    assert failures.given_up() == {4} and failures.errors == {4: "why not"}
    failures.keep(set())
    assert failures.may_try() and failures.errors == {}


def test_pauses_grow_from_none_to_the_longest() -> None:
    assert [pause_s(failures) for failures in range(7)] == [0, 0.5, 1, 2, 4, 8, LONGEST_PAUSE_S]
    assert pause_s(10**6) == LONGEST_PAUSE_S
