"""The minimum cut against trying every labelling."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from nacre.passes.graph.min_cut import INFINITE, MinCut

NODES = [MinCut.ZERO, MinCut.ONE, *"abcdef"]


def cost(edges, zero):
    return sum(c for a, b, c in edges if a in zero and b not in zero)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES), st.integers(0, 9)), max_size=24))
def test_no_labelling_is_cheaper_and_ties_go_to_one(edges):
    edges = [(a, b, c) for a, b, c in edges if a != b]
    cut = MinCut()
    for a, b, c in edges:
        cut.pay(a, b, c)
    found = cut.labelled_zero()
    assert MinCut.ZERO in found and MinCut.ONE not in found
    free = NODES[2:]
    every = [
        {MinCut.ZERO, *chosen} for n in range(len(free) + 1) for chosen in itertools.combinations(free, n)
    ]
    least = min(cost(edges, zero) for zero in every)
    assert cost(edges, found) == least
    assert all(found <= zero for zero in every if cost(edges, zero) == least)


def test_infinite_edges_bind_labels():
    cut = MinCut()
    cut.pay(MinCut.ZERO, "a", 3)
    cut.pay("a", "b", INFINITE)
    cut.pay("b", MinCut.ONE, 5)
    assert cut.labelled_zero() == {MinCut.ZERO}
    cut.pay(MinCut.ZERO, "b", 4)
    assert cut.labelled_zero() == {MinCut.ZERO, "a", "b"}
