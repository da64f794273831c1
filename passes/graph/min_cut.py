"""The cheapest way to give every node one of two labels: a minimum cut of a directed graph.

Dinic's algorithm (Dinitz 1970): blocking flows along shortest paths, without recursion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

INFINITE = 1 << 62


class MinCut:
    """Edges with capacities between any hashable nodes; `zero` and `one` are the two fixed labels."""

    ZERO, ONE = "label 0", "label 1"

    def __init__(self) -> None:
        self._index: dict[Hashable, int] = {}
        self._out: list[list[int]] = []
        self._to: list[int] = []
        self._room: list[int] = []
        self.node(self.ZERO), self.node(self.ONE)

    def node(self, name: Hashable) -> int:
        """The number of a node, made when it is new."""
        if name not in self._index:
            self._index[name] = len(self._out)
            self._out.append([])
        return self._index[name]

    def pay(self, zero: Hashable, one: Hashable, cost: int) -> None:
        """Having `zero` labelled 0 and `one` labelled 1 costs this much."""
        if cost <= 0 or zero == one:
            return
        for start, end, room in (
            (self.node(zero), self.node(one), cost),
            (self.node(one), self.node(zero), 0),
        ):
            self._out[start].append(len(self._to))
            self._to.append(end)
            self._room.append(room)

    def labelled_zero(self) -> set[Hashable]:
        """The smallest set of nodes labelled 0 in a cheapest labelling; ties go to label 1."""
        while (level := self._levels())[1] >= 0:
            self._block(level)
        return {name for name, node in self._index.items() if level[node] >= 0}

    def _levels(self) -> list[int]:
        level = [-1] * len(self._out)
        level[0] = 0
        queue = deque([0])
        while queue:
            node = queue.popleft()
            for edge in self._out[node]:
                if self._room[edge] and level[self._to[edge]] < 0:
                    level[self._to[edge]] = level[node] + 1
                    queue.append(self._to[edge])
        return level

    def _block(self, level: list[int]) -> None:
        """Push flow along paths of rising levels until none is left."""
        tried = [0] * len(self._out)
        path: list[int] = []
        while True:
            node = self._to[path[-1]] if path else 0
            if node == 1:
                amount = min(self._room[edge] for edge in path)
                for edge in path:
                    self._room[edge] -= amount
                    self._room[edge ^ 1] += amount
                full = next(i for i, edge in enumerate(path) if not self._room[edge])
                del path[full:]
                continue
            while tried[node] < len(self._out[node]):
                edge = self._out[node][tried[node]]
                if self._room[edge] and level[self._to[edge]] == level[node] + 1:
                    path.append(edge)
                    break
                tried[node] += 1
            else:
                if not path:
                    return
                tried[self._to[path.pop() ^ 1]] += 1
