"""Duplicate images: the same pixels by a digest, almost the same by a perceptual hash."""

import hashlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

# Bits of a perceptual hash in which two images may differ and still count as almost the same.
ALIKE = 16
# Pairs are compared in blocks of this shape: about 5 MB at a time, whatever the number of images.
_ROWS, _COLUMNS = 256, 2048


def pixel_digest(image: Image.Image) -> bytes:
    """16 bytes: the same where size and pixels are the same, and different where they differ.

    Args:
        image: of mode RGB, upright.
    """
    size = f"{image.width} x {image.height}\n".encode()
    return hashlib.blake2b(size + image.tobytes(), digest_size=16).digest()


def perceptual_hash(image: Image.Image) -> np.ndarray:
    """The 256 lowest frequencies of the grey image, each above or below their median.

    That is ImageHash's `phash` with `hash_size=16`. Its usual 64 bits are too few: leaves on plain
    ground share their low frequencies. Measured, as pairs that differ in so many bits at
    most, none of them a copy (leaves: procedural_leaves, 12 or 24 per class; least hard:
    difficulty 0):

                                              of 64 bits        of 256 bits
      pictures                      pairs      2     4     8    16    20    24    32
      264 photographs of produce   34,716      1     1     1     0     0     0     0
      480 leaves                  114,960      5    38   886     0     0     0     0
      12,000 leaves            71,994,000                        0     0     1    34
      12,000 leaves, least hard         "                        0     3    18   131

    and how many of 256 bits a copy differs in, median and 95 % (photographs; leaves): saved as
    JPEG of quality 60: 0, 2; 4, 8. Half the size: 0, 2; 2, 6. 20 % darker: 0, 2; 2, 4; brighter:
    4, 7; 6, 20. In 64 colours: 4, 10; 6, 7. Rotated by 1 degree: 16, 22; 10, 18. 2 % cut off each
    side: 32, 45; 17, 26. So `ALIKE` = 16 finds what was saved anew, resized, or made a little
    brighter, most of what was hardly rotated, and not what was cropped. It may miss copies of
    blurred pictures, whose high frequencies are noise.

    Args:
        image: of mode RGB, upright.

    Returns:
        uint64 [4].
    """
    import imagehash  # takes scipy along

    return np.packbits(imagehash.phash(image, hash_size=16).hash).view(np.uint64)


def distances(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Bits in which hashes differ.

    Args:
        hashes: uint64 [..., 4].
        others: uint64 [..., 4], of a shape that broadcasts.

    Returns:
        int [...], 0 to 256.
    """
    return np.bitwise_count(hashes ^ others).sum(-1, dtype=np.int64)


def alike_pairs(hashes: np.ndarray, *, most: int = ALIKE) -> Iterator[np.ndarray]:
    """The pairs of hashes that differ in at most `most` bits, block by block.

    Args:
        hashes: uint64 [N, 4].
        most: bits.

    Yields:
        int [P, 2], each pair (i, j) once, i < j.
    """
    # The highest frequencies tell most images apart by themselves: compare these 64 bits first.
    last = np.ascontiguousarray(hashes[:, -1])  # [N]
    for top in range(0, len(hashes), _ROWS):
        for left in range(top, len(hashes), _COLUMNS):
            rows, columns = last[top : top + _ROWS], last[left : left + _COLUMNS]
            near = np.bitwise_count(rows[:, None] ^ columns[None, :]) <= most  # [rows, columns]
            pairs = np.argwhere(near) + (top, left)  # [P, 2]
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            yield pairs[distances(hashes[pairs[:, 0]], hashes[pairs[:, 1]]) <= most]


def alike_groups(hashes: np.ndarray, *, most: int = ALIKE) -> list[list[int]]:
    """Groups of hashes that differ in at most `most` bits, or are linked by such pairs.

    Args:
        hashes: uint64 [N, 4].
        most: bits.

    Returns:
        Indices of each group of two or more, sorted, in the order of their first.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Block by block, for of images that are all alike the pairs do not fit the memory.
    group = np.arange(len(hashes))  # [N], the number of what each is known to be linked to
    for pairs in alike_pairs(hashes, most=most):
        links = group[pairs]
        links = links[links[:, 0] != links[:, 1]]  # [P, 2]
        if len(links):
            graph = coo_array((np.ones(len(links), bool), links.T), (len(hashes),) * 2)
            group = connected_components(graph, directed=False)[1][group]
    members: dict[int, list[int]] = {}
    for index, first in enumerate(group.tolist()):
        members.setdefault(first, []).append(index)
    return [inside for inside in members.values() if len(inside) > 1]
