"""Results of searches in a gallery."""

from __future__ import annotations

from typing import NamedTuple

#: Name of a person whose best candidate is below the threshold. It cannot be enrolled.
UNKNOWN = 'unknown'


class Candidate(NamedTuple):
    """Enrolled identity that a search found.

    Attributes:
        name: of the identity.
        cosine: similarity of its best embedding, in [-1, 1], a multiple of 2^-20.
    """

    name: str
    cosine: float


class Found(NamedTuple):
    """Result of a search.

    Attributes:
        name: the best candidate, or ``unknown`` where it is below the threshold or nobody is
            enrolled.
        candidates: the k most similar identities, the best first, also those below the threshold.
            Equally similar ones are in the order of their enrolment.
    """

    name: str
    candidates: tuple[Candidate, ...]


class Recall(NamedTuple):
    """Agreement of an index with the exact search.

    Attributes:
        recall: share of the queries whose best candidate is as similar as that of the exact search.
        queries: number of queries.
        effort: cells probed (IVF) or candidates kept on the way (HNSW); 0 for the exact search.
    """

    recall: float
    queries: int
    effort: int
