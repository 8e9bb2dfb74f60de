"""PyTorch sorts tokens by their experts."""

import torch

from slm_torch.layers.moe import rows_by_expert


def test_rows_are_the_pairs_sorted_by_expert():
    chosen = torch.tensor([2, 0, 2, 3, 0])
    rows = rows_by_expert(chosen, 4)
    assert rows.sizes == [2, 0, 2, 1]
    assert rows.pair.tolist() == [1, 4, 0, 2, 3]
    assert rows.row[rows.pair].tolist() == list(range(5))
