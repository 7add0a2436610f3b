"""A search for each batch size, independent of the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpjax.core.space import Point, Space
from hpjax.samplers import Observation, Sampler


@dataclass(frozen=True)
class SearchPerBatchSize(Sampler):
    """A sampler with an independent search for each batch size; trial ``i`` has number ``i % len(batch_sizes)``.

    Args:
      name: the hyperparameter that is the batch size.
      batch_sizes: the batch sizes.
      space: the other hyperparameters.
      sampler: proposes these, for each batch size with a seed of its own.
    """

    name: str
    batch_sizes: tuple[int, ...]
    space: Space
    sampler: Sampler

    def size(self, space: Space) -> int | None:
        """Returns how many points all searches have together, None where they never run out."""
        points = self.sampler.size(self.space)
        return None if points is None else points * len(self.batch_sizes)

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        """Returns the points of trials ``start`` to ``start + n``; ``space`` holds the batch size too."""
        many = len(self.batch_sizes)
        found = []
        for i, size in enumerate(self.batch_sizes):
            seen = [each._replace(point=self._without_size(each.point)) for each in history[i::many]]
            # How many of the trials asked for have this batch size.
            count = len(range(start + (i - start) % many, start + n, many))
            own_seed = int(np.random.SeedSequence((seed, size)).generate_state(1)[0])
            found.append(iter(self.sampler.ask(self.space, seen, count, own_seed)))
        numbers = [trial % many for trial in range(start, start + n)]
        return [{**next(found[i]), self.name: self.batch_sizes[i]} for i in numbers]

    def ask(self, space: Space, history: Sequence[Observation], n: int, seed: int) -> list[Point]:
        """Returns the next ``n`` points. Each of the searches puts its baseline first, so that this one adds none."""
        return self.propose(space, history, len(history), n, seed)

    def _without_size(self, point: Point) -> Point:
        return {name: value for name, value in point.items() if name != self.name}


@dataclass(frozen=True)
class SearchPerAlternative(Sampler):
    """A sampler with an independent search in each alternative of a space; trial ``i`` has number ``i % alternatives``.

    A search learns from the median over the first replicates, so that the others can judge what it finds.

    Args:
      sampler: proposes the points of each alternative, with a seed of its own.
      choosing: how many replicates a search learns from; with them a trial's score is infinite if half diverged.
    """

    sampler: Sampler
    choosing: int

    def propose(self, space: Space, history: Sequence[Observation], start: int, n: int, seed: int) -> list[Point]:
        """Returns the points of trials ``start`` to ``start + n``."""
        many = len(space.branches)
        found = []
        for i, branch in enumerate(space.branches):
            seen = [each._replace(scores=(self._median(each),)) for each in history[i::many]]
            count = len(range(start + (i - start) % many, start + n, many))
            own_seed = int(np.random.SeedSequence((seed, i)).generate_state(1)[0])
            found.append(iter(self.sampler.ask(Space(**branch), seen, count, own_seed)))
        return [next(found[trial % many]) for trial in range(start, start + n)]

    def ask(self, space: Space, history: Sequence[Observation], n: int, seed: int) -> list[Point]:
        """Returns the next ``n`` points. Each of the searches puts its baseline first, so that this one adds none."""
        return self.propose(space, history, len(history), n, seed)

    def _median(self, observation: Observation) -> float:
        scores = np.sort(observation.scores[: self.choosing])
        # Of an even number the mean of the middle two; NumPy's own warns of infinite ones.
        return float((scores[(len(scores) - 1) // 2] + scores[len(scores) // 2]) / 2)
