"""Token series folded into the tokens of a model: ranks that repeat one another, and cached prompt tokens taken off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from tokenwatt.types import Kind, SeriesKey, SeriesKind

Page = Mapping[SeriesKey, int]
"""Counter values as a server shows them."""

Tokens = dict[tuple[str, Kind], int]
"""By model and kind."""


Group = tuple[str, SeriesKind, str]
"""Series that differ in their rank alone: the rest of their keys."""


class Ranks:
    """What each series counted since its own baseline, and per group the largest of them.

    The largest count, not the largest delta: pipeline stages count the same tokens one after the other, and where each one's step is taken
    at another reading, the largest deltas would count them twice. A group never falls, also where its largest series is no longer shown.
    """

    def __init__(self) -> None:
        self._counts: dict[SeriesKey, int] = {}
        self._groups: dict[Group, int] = {}
        self._members: dict[Group, list[SeriesKey]] = defaultdict(list)

    def begin(self, page: Page) -> None:
        """Take a page as the baseline: its series are level with their groups."""
        self.anew()
        for key in page:
            group = key[:3]
            self._members[group].append(key)
            self._counts[key] = self._groups.setdefault(group, 0)

    def anew(self) -> None:
        """The server began anew: its ranks may be others, and none is ahead of another."""
        self._counts.clear()
        self._members.clear()

    def rise(self, page: Page, deltas: Page) -> dict[tuple[str, SeriesKind], int]:
        """What the groups rose by, by model and kind, over all labels."""
        rose: dict[tuple[str, SeriesKind], int] = defaultdict(int)
        joining = []
        for key, delta in deltas.items():
            count = self._counts.get(key)
            if count is None:
                joining.append(key)
            elif delta:
                self._set(key, count + delta, rose)
        # After the others: they are compared with where those stand on the same page.
        for key in joining:
            self._set(key, self._joined(key, page, deltas[key]), rose)
        return rose

    def _set(self, key: SeriesKey, count: int, rose: dict[tuple[str, SeriesKind], int]) -> None:
        self._counts[key] = count
        group = key[:3]
        before = self._groups.setdefault(group, 0)
        if count > before:
            self._groups[group] = count
            rose[key[:2]] += count - before

    def _joined(self, key: SeriesKey, page: Page, value: int) -> int:
        """The count of a series that was not there before. Alone it counts from zero. Beside other ranks it shows what they show, so what
        they held at their baseline is in its value as well."""
        group = key[:3]
        bases = [page[other] - self._counts[other] for other in self._members[group] if other in page]
        self._members[group].append(key)
        if not bases:
            return self._groups.get(group, 0) + value
        return max(page.get(key, value) - max(bases), 0)


class PromptSplit:
    """One model's prompt tokens, where the prompt counter includes the cached ones.

    The two counters move together, but a page may be rendered between. What is published then: computed and cached never fall, and together
    they are what the prompt counter says at any moment. Once the counters are level again, so is the split.
    """

    def __init__(self) -> None:
        self._computed = self._cached = self._cached_counter = 0

    def rise(self, prompt: int, cached: int) -> tuple[int, int]:
        """Computed and cached tokens, of what the two counters rose by."""
        total = self._computed + self._cached + prompt
        self._cached_counter += cached
        computed = max(self._computed, total - self._cached_counter)
        rose = computed - self._computed, total - computed - self._cached
        self._computed, self._cached = computed, total - computed
        return rose


class Folding:
    """All series of one server, folded."""

    def __init__(self) -> None:
        self._ranks = Ranks()
        self._splits: dict[str, PromptSplit] = {}

    def begin(self, page: Page) -> None:
        """Take a page as the baseline."""
        self._ranks.begin(page)
        self._splits.clear()

    def anew(self) -> None:
        """The server began anew, all of it."""
        self._ranks.anew()
        self._splits.clear()

    def level(self) -> None:
        """A counter began anew: how far one was behind another is lost with it."""
        self._splits.clear()

    def fold(self, page: Page, deltas: Page) -> Tokens:
        """The tokens of what the series of a page rose by."""
        for key in deltas:
            if key.kind == "prompt" and key.model not in self._splits:
                self._splits[key.model] = PromptSplit()
        rose = self._ranks.rise(page, deltas)
        tokens: Tokens = {}
        for model, split in self._splits.items():
            prompt, cached = rose.pop((model, "prompt"), 0), rose.pop((model, "prompt_cached"), 0)
            if prompt or cached:
                tokens[model, "prompt_computed"], tokens[model, "prompt_cached"] = split.rise(prompt, cached)
        for (model, kind), count in rose.items():
            if kind != "prompt":
                tokens[model, kind] = tokens.get((model, kind), 0) + count
        return tokens
