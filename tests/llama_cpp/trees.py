"""The source tree that ``--source`` and ``--patch`` name, as the graph has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.request.binaries_graph import named_tree, patched
from llama_runner.request.source_tree_facts import find_patches, find_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.llama_cpp.pinned_source import NumberedTree


def tree_from(text: str, *, patches: Sequence[str] = (), offline: bool = False) -> NumberedTree:
    """Find a tree and its patches, and return the node that gives it."""
    tree = named_tree(find_tree(text, offline=offline))
    return patched(tree, find_patches(patches)) if patches else tree
