"""What is learnt from a teacher: its vectors, and how near they are to each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize

from cmbert_retrieval.finetuning.teacher import VectorCache


class TeacherLoss(torch.nn.Module):  # type: ignore[misc]
    """One minus the cosine to the teacher's vector, and the difference of all similarities within a batch.

    The second part also works where the two models' vectors have different lengths: then it is the only one.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        cache: VectorCache,
        *,
        similarity: float,
        shorter: Sequence[int] = (),
    ) -> None:
        """Learn from a cache.

        Args:
            model: the student.
            cache: the teacher's vectors; labels are rows of it.
            similarity: weight of the second part.
            shorter: lengths of the vectors' beginnings, for which the second part is taken, too.
        """
        super().__init__()
        self.model, self._cache = model, cache
        self._weight, self._shorter = similarity, tuple(shorter)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: ``labels`` ``[texts]`` are rows of the cache."""
        (features,) = sentence_features
        student = normalize(self.model(features)["sentence_embedding"].float(), dim=-1)
        teacher = torch.from_numpy(self._cache.take(labels.cpu().numpy())).to(student.device)
        loss = student.new_zeros(())
        if student.shape[1] == teacher.shape[1]:
            loss = loss + (1 - (student * teacher).sum(-1)).mean()
        if self._weight:
            lengths = (student.shape[1], *self._shorter)
            gaps = [_distance(normalize(student[:, :length], dim=-1), teacher) for length in lengths]
            loss = loss + self._weight * torch.stack(gaps).mean()
        return loss


def _distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean square of what the similarities of different texts differ by, times their number.

    Between random texts cosines are near 0, so that their mean would hardly count beside the vectors' own.
    """
    gap = student @ student.T - teacher @ teacher.T
    texts = len(gap)
    return gap.square().sum() / max(1, texts * (texts - 1)) * _SIMILARITIES


_SIMILARITIES = 10.0
"""So that both parts are about equal in the middle of a run; measured."""
