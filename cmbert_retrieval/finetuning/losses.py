"""What is learnt from a teacher: its vectors, and how near they are to each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize

_SIMILARITIES = 10.0
"""Between different texts cosines are near 0, so that what they differ by would hardly count beside the
vectors' own cosines."""


class TeacherLoss(torch.nn.Module):  # type: ignore[misc]
    """One minus the cosine to the teacher's vector, and the difference of all similarities within a batch.

    The second part also works where the two models' vectors have different lengths: then it is the only one.
    Of several processes, each compares the texts that it has.
    """

    def __init__(self, model: SentenceTransformer, *, similarity: float, shorter: Sequence[int] = ()) -> None:
        """Learn from vectors that come as labels.

        Args:
            model: the student.
            similarity: weight of the second part.
            shorter: lengths of the vectors' beginnings, for which the second part is taken, too.
        """
        super().__init__()
        self.model, self._weight, self._shorter = model, similarity, tuple(shorter)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: ``labels`` ``[texts, dim]`` are the teacher's vectors."""
        (features,) = sentence_features
        vectors = self.model(features)["sentence_embedding"]
        with torch.autocast(vectors.device.type, enabled=False):
            student, teacher = normalize(vectors.float(), dim=-1), normalize(labels.float(), dim=-1)
            loss = student.new_zeros(())
            if student.shape[1] == teacher.shape[1]:
                loss = loss + (1 - (student * teacher).sum(-1)).mean()
            if self._weight:
                lengths = (student.shape[1], *self._shorter)
                gaps = [_distance(normalize(student[:, :length], dim=-1), teacher) for length in lengths]
                loss = loss + self._weight * torch.stack(gaps).mean()
        return loss


def _distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean square of what the similarities of different texts differ by, made larger."""
    gap = student @ student.T - teacher @ teacher.T
    texts = len(gap)
    return gap.square().sum() / max(1, texts * (texts - 1)) * _SIMILARITIES
