import pytest

from unstuck.search.health import verdict


def numbers(updates, share, repeats=0.0):
    return {
        "updates": float(updates),
        "entropy": 9.66 * share,
        "entropy_share": share,
        "highest": 9.66,
        "repeats": repeats,
    }


def test_nothing_is_said_before_there_are_updates():
    assert verdict([]).name == verdict([{"updates": 0.0}]).name == "too early"
    few = verdict([numbers(1, 0.999), numbers(19, 0.999)])
    assert few.name == "too early" and "19 updates" in few.sentence


def test_fine():
    told = verdict([numbers(1, 0.99), numbers(40, 0.6, 0.1)])
    assert told.name == "fine"
    assert (
        told.sentence
        == "the controller learns: its entropy is 5.8 nats, 60% of the highest, and 10% of its latest draws are repeats"
    )


@pytest.mark.parametrize(("repeats", "name"), [(0.7, "collapsed"), (0.69, "fine")])
def test_collapsed_repeats_itself(repeats, name):
    told = verdict([numbers(1, 0.99), numbers(40, 0.2, repeats)])
    assert told.name == name
    if name == "collapsed":
        assert told.sentence.startswith("the controller has collapsed: 70% of its latest draws are repeats")


def test_while_all_fail_it_is_too_early():
    assert verdict([{"updates": 30.0, "failed": 120.0, "repeats": 0.0}]).name == "too early"


@pytest.mark.parametrize(("share", "name"), [(0.9905, "not learning"), (0.9895, "fine")])
def test_not_learning_has_the_entropy_of_chance(share, name):
    told = verdict([numbers(1, 0.9995), numbers(62, share)])
    assert told.name == name
    if name == "not learning":
        assert told.sentence.startswith(
            "the controller isn't learning: its entropy went from 9.655 to 9.568 nats in 62 updates"
        )


def test_thresholds_are_arguments():
    history = [numbers(1, 0.99), numbers(5, 0.3, 0.3)]
    assert verdict(history, updates=5, repeats=0.3).name == "collapsed"
    assert verdict(history, updates=5, fallen=0.8).name == "not learning"
    assert verdict(history, updates=5).name == "fine"
