"""Skeletons: the limbs between joints, and the mirror joint of each."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet_ext.data.skeletons import COCO_LIMBS

#: The joint that each of COCO's joints becomes in a mirror image.
COCO_FLIP = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)

#: The links from ears to shoulders: an ear is often the only joint of a head that is seen.
EAR_SHOULDER_LIMBS = ((3, 5), (4, 6))

#: Limbs that tie joints together where those between them are missing.
_BRIDGES = (
    (0, 5),
    (0, 6),
    (3, 4),
    (1, 5),
    (2, 6),
    (5, 12),
    (6, 11),
    (3, 6),
    (4, 5),
    (9, 11),
    (10, 12),
    (13, 14),
    (15, 16),
    (5, 13),
    (6, 14),
    (9, 10),
    (7, 8),
    (5, 9),
    (6, 10),
)

#: COCO's limbs and further ones, so that people with missing joints stay in one part.
COCO_WIDE_LIMBS = COCO_LIMBS + _BRIDGES

#: Tables of limbs by name.
LIMB_TABLES: dict[str, tuple[tuple[int, int], ...]] = {
    'coco': COCO_LIMBS,
    'coco_wide': COCO_WIDE_LIMBS,
}


def read_limbs(limbs: str | Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Return limbs from the name of a table, or from pairs of joints.

    Args:
        limbs: a key of `LIMB_TABLES`, or pairs.

    Raises:
        ValueError: for an unknown name.

    >>> read_limbs('coco')[:2], read_limbs([[0, 1]])
    (((15, 13), (13, 11)), ((0, 1),))
    """
    if isinstance(limbs, str):
        if limbs not in LIMB_TABLES:
            raise ValueError(
                f'limbs must be one of {", ".join(LIMB_TABLES)}, or pairs of joints, got {limbs!r}'
            )
        return LIMB_TABLES[limbs]
    return tuple((int(start), int(end)) for start, end in limbs)


def mirror_limbs(
    limbs: Sequence[Sequence[int]], flip: Sequence[int]
) -> tuple[list[int], list[bool]]:
    """Find the limb that each limb becomes in a mirror image.

    Args:
        limbs: pairs of joints.
        flip: the mirror joint of each joint.

    Returns:
        tuple: number of the mirror limb of each limb; and whether it runs the other way, so that
        its field has the other sign.

    Raises:
        ValueError: if the mirror of a limb is no limb.

    >>> mirror_limbs([(1, 3), (2, 4), (1, 2)], [0, 2, 1, 4, 3])
    ([1, 0, 2], [False, False, True])
    """
    pairs = [(int(start), int(end)) for start, end in limbs]
    index, turned = [], []
    for start, end in pairs:
        mirror = (flip[start], flip[end])
        if mirror in pairs:
            index.append(pairs.index(mirror))
            turned.append(False)
        elif mirror[::-1] in pairs:
            index.append(pairs.index(mirror[::-1]))
            turned.append(True)
        else:
            raise ValueError(
                f'limbs must hold the mirror {mirror} of {(start, end)} for a flip test'
            )
    return index, turned
