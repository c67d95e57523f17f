"""Large tensors in pieces, which a GPU works on at the same time; equal the tensors that they are views of."""

from collections.abc import Sequence

import torch as th

# Elements of one. PyTorch gives 65 536 to a block of threads: a hidden layer's weights are then one block's work, or two's
_SIZE = 8192


def in_pieces(*lists: Sequence[th.Tensor]) -> tuple[list[th.Tensor], ...]:
    """
    Views of tensors that together are these tensors, each in as many pieces as its counterparts.

    :param lists: of tensors, those at the same place of the same number of elements; a scalar counts for each piece
    :return: the pieces of each list
    """
    return tuple(map(list, zip(*(row for row_of in zip(*lists, strict=True) for row in _pieces(row_of)), strict=True)))


def _pieces(tensors: tuple[th.Tensor, ...]) -> list[tuple[th.Tensor, ...]]:
    size = max(tensor.numel() for tensor in tensors)
    if size <= _SIZE or not all(tensor.is_contiguous() for tensor in tensors):
        return [tensors]
    n = -(-size // _SIZE)
    parts = [tensor.view(-1).split(_SIZE) if tensor.numel() == size else [tensor] * n for tensor in tensors]
    return list(zip(*parts, strict=True))
