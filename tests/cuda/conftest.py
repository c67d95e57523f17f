"""What only a GPU can show. Needs one, and nothing but PyTorch, Stable-Baselines3, Gymnasium and pytest."""

from pathlib import Path

import pytest
import torch as th


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    without = pytest.mark.skip(reason="needs a CUDA device, and PyTorch finds none on this machine")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cuda)
            if not th.cuda.is_available():
                item.add_marker(without)
