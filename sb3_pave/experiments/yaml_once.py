"""YAML in which each key stands once."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, which would keep the last of several values without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(keys):
            if any((other.tag, other.value) == (key.tag, key.value) for other in keys[:i]):
                raise yaml.composer.ComposerError(None, None, f"the key {key.value} stands there twice", key.start_mark)
        return node


def load_once(text: str) -> Any:
    """
    :param text: YAML
    :return: what it holds
    :raises yaml.YAMLError: if it is none, or a mapping has a key twice
    """
    return yaml.load(text, Loader=_Loader)
