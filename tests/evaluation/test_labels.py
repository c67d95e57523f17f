"""Agents are told apart by what they are, and by no more of their path than that takes."""

from pathlib import Path

import pytest

from sb3_pave.evaluation.agents import Agent
from sb3_pave.evaluation.labels import given_twice, short_paths, titles, told_apart


def zips(*agents):
    return [Agent(algorithm, Path(path).stem, Path("/logs", path)) for algorithm, path in agents]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/x.zip"], ["x"]),
        (["/a/x.zip", "/b/y.zip"], ["x", "y"]),
        (["/a/best.zip", "/b/best.zip", "/b/last.zip"], ["a/best", "b/best", "last"]),
        (["/1/run/best.zip", "/2/run/best.zip"], ["1/run/best", "2/run/best"]),
        (["/run/best.zip", "/2/run/best.zip"], ["//run/best", "2/run/best"]),
    ],
)
def test_paths_are_as_short_as_they_can_be(paths, names):
    assert short_paths([Path(path) for path in paths]) == names


def test_different_algorithms_keep_their_names():
    named = told_apart(zips(("td3", "a/best_model.zip"), ("ddpg", "b/best_model.zip")))
    assert [(one.label, one.run) for one in named] == [("td3", "a/best_model"), ("ddpg", "b/best_model")]


def test_agents_of_one_algorithm_are_joined_only_by_a_label():
    agents = zips(("sac", "a/best_model.zip"), ("sac", "b/best_model.zip"), ("td3", "c.zip"))
    assert [one.label for one in told_apart(agents)] == ["sac a/best_model", "sac b/best_model", "td3"]
    assert [one.label for one in told_apart(agents, ["mine", "mine", "his"])] == ["mine", "mine", "his"]
    joined = told_apart(agents, ["all"])
    assert {one.label for one in joined} == {"all"} and [one.run for one in joined] == ["a/best_model", "b/best_model", "c"]


def test_a_file_given_twice_is_one_agent():
    named = told_apart(zips(("sac", "a.zip"), ("sac", "b/../a.zip")))
    assert [(one.label, one.run) for one in named] == [("sac", "a")]
    assert given_twice(zips(("sac", "a.zip"), ("sac", "b.zip"))) == []
    (note,) = given_twice(zips(("sac", "a.zip"), ("sac", "b/../a.zip")))
    assert note.startswith("/logs/a.zip was given 2 times")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["sac 1/x", "td3 1/x"], ["sac", "td3"]),
        (["sac 1/x", "sac 1/best"], ["sac, x", "sac, best"]),
        (["sac 1/x", "sac 2/x"], ["sac, 1/x", "sac, 2/x"]),
        (["sac 1/x", "sac 1/x", "td3 1/y"], ["sac, x", "sac, x (2)", "td3"]),
    ],
)
def test_no_two_titles_are_the_same(paths, expected):
    assert titles(zips(*((name, f"{path}.zip") for name, path in map(str.split, paths)))) == expected
