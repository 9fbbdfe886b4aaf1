"""Two teachers as one: what both say, in vectors as long as the first one's and nearly where its own are.

The two vectors of a text, behind each other, are brought to the directions in which most is said, so that
inner products stay what they were as far as that many numbers can keep them. Then the space is turned to the
first teacher's: a student of that one has little to unlearn.

Source: that concatenated vectors of several encoders, brought to fewer numbers by principal components, are
better than each: Yin and Schütze, "Learning Word Meta-Embeddings", ACL 2016. Turning: Schönemann, "A
generalized solution of the orthogonal Procrustes problem", 1966.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Joining:
    """Brings the vectors of two teachers together."""

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        """Take what ``learn`` made: ``[both lengths together, dim]``."""
        self.matrix = matrix

    @classmethod
    def learn(cls, first: NDArray[np.float32], second: NDArray[np.float32]) -> Joining:
        """Find directions and turning.

        Args:
            first: ``[texts, dim]`` of unit length; more texts than both lengths together, or the directions
                are those of these texts alone.
            second: ``[texts, any]`` of the same texts, all of one length, which says how much they count.
        """
        both = np.hstack([first, second]).astype(np.float64)
        _, directions = np.linalg.eigh(both.T @ both)
        most = directions[:, ::-1][:, : first.shape[1]]
        left, _, right = np.linalg.svd((both @ most).T @ first.astype(np.float64), full_matrices=False)
        return cls((most @ (left @ right)).astype(np.float32))

    def of(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``[texts, dim]`` of unit length."""
        vectors: NDArray[np.float32] = np.hstack([first, second]) @ self.matrix
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        return vectors
