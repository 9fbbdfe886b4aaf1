"""How often the hidden token is among the model's first guesses, for all tokens and for terms apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

RANKS = (1, 5, 10, 25)


PARTS = ("all", "terms")


@dataclass(slots=True)
class Accuracy:
    """Counts of hits: add batches, then ask for shares.

    Attributes:
        counts: ``[parts, ranks + 1]``: hits at each rank, then tokens.
        loss: sum of the cross-entropies.
    """

    counts: torch.Tensor = field(
        default_factory=lambda: torch.zeros(len(PARTS), len(RANKS) + 1, dtype=torch.float64)
    )
    loss: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, logits: torch.Tensor, labels: torch.Tensor, terms: torch.Tensor) -> None:
        """Count what was predicted.

        Args:
            logits: ``[predicted, vocabulary]``.
            labels: ``[predicted]``, the tokens that were hidden.
            terms: ``[predicted]``, whether each is part of a term.
        """
        logits = logits.float()
        self.loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").double().cpu()
        # Ties count against the model: one that always says the same must not be right by chance.
        ahead = (logits >= logits.gather(1, labels[:, None])).sum(1) - 1
        for number, part in enumerate((ahead, ahead[terms])):
            hits = [(part < rank).sum() for rank in RANKS]
            self.counts[number] += torch.stack([*hits, hits[0].new_tensor(len(part))]).double().cpu()

    def shares(self) -> dict[str, float]:
        """Return ``accuracy@k`` and ``terms_accuracy@k`` for each rank, ``loss``, and the tokens counted."""
        found: dict[str, float] = {}
        for name, counts in zip(("", "terms_"), self.counts.tolist(), strict=True):
            tokens = counts[-1]
            for rank, hits in zip(RANKS, counts, strict=False):
                found[f"{name}accuracy@{rank}"] = hits / tokens if tokens else 0.0
            found[f"{name}predicted"] = tokens
        found["loss"] = float(self.loss) / found["predicted"] if found["predicted"] else 0.0
        return found
