"""The object graph of a TensorFlow 2 checkpoint: readable names for its keys, without running or parsing any graph.

TrackableObjectGraph (tensorflow/core/protobuf/trackable_object_graph.proto): nodes with children (node id, local
name), attributes (name, full name, checkpoint key) and slot variables (variable's id, slot name, slot's id).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Iterator
from dataclasses import dataclass

from bigbird_port.formats.limits import MAX_NAME_BYTES, MAX_NODES, MAX_TENSORS
from bigbird_port.formats.runs import check_name
from bigbird_port.formats.tensorflow.protobuf_fields import bytes_of, last_fields, number_of, repeated

SLOT = ".OPTIMIZER_SLOT"  # TensorFlow's own mark in the keys of optimizer slots


@dataclass(frozen=True, slots=True)
class Attribute:
    """A variable of one node. full_name: as its program named it, maybe empty or not unique; key: in the bundle."""

    node: int
    name: str
    full_name: str
    key: str


@dataclass(frozen=True, slots=True)
class ObjectGraph:
    """attributes: nearest to the root first. came_from: node -> (parent, local name). slots: node -> (node, slot)."""

    attributes: tuple[Attribute, ...]
    came_from: dict[int, tuple[int, str]]
    slots: dict[int, tuple[int, str]]

    def path(self, node: int) -> str:
        """Local names from the root to a node, joined by slashes; "" where it is too long for a name."""
        parts: list[str] = []
        size = 0
        while node in self.came_from:
            node, local = self.came_from[node]
            parts.append(local)
            size += len(local) + 1
            if size > MAX_NAME_BYTES:
                return ""
        return "/".join(reversed(parts))


def parse_object_graph(data: bytes) -> ObjectGraph:
    """Return what a serialised TrackableObjectGraph says; raises ValueError where it is damaged."""
    nodes: list[bytes] = []
    for node in repeated(data, 1):
        nodes.append(node)
        if len(nodes) > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES} nodes")
    came_from: dict[int, tuple[int, str]] = {}
    slots: dict[int, tuple[int, str]] = {}
    attributes: list[Attribute] = []
    waiting, seen = deque([0] if nodes else []), {0}
    while waiting:
        at = waiting.popleft()
        for each in _attributes(at, nodes[at]):
            attributes.append(each)
            if len(attributes) > MAX_TENSORS:
                raise ValueError(f"it has more than {MAX_TENSORS} variables")
        for variable, slot, name in _references(nodes[at], 3, (1, 3, 2), len(nodes)):
            slots[slot] = (variable, name)
            if slot not in seen:  # slot variables are children of no node
                seen.add(slot)
                waiting.append(slot)
        for child, _, local in _references(nodes[at], 1, (1, 1, 2), len(nodes)):
            if child not in seen:
                seen.add(child)
                waiting.append(child)
                came_from[child] = (at, local)
    return ObjectGraph(tuple(attributes), came_from, slots)


def _attributes(node: int, data: bytes) -> Iterator[Attribute]:
    for raw in repeated(data, 2):
        fields = last_fields(raw)
        name, full_name, key = (bytes_of(fields, number).decode() for number in (1, 2, 3))
        yield Attribute(node, name, full_name.removesuffix(":0"), key)


def _references(node: bytes, field: int, parts: tuple[int, int, int], count: int) -> Iterator[tuple[int, int, str]]:
    """Yield two node ids and a name from the messages of one field; parts: the numbers of theirs."""
    for raw in repeated(node, field):
        fields = last_fields(raw)
        first, second = number_of(fields, parts[0]), number_of(fields, parts[1])
        if max(first, second) >= count:
            raise ValueError(f"it refers to node {max(first, second)} of {count}")
        yield first, second, bytes_of(fields, parts[2]).decode()


def readable_names(graph: ObjectGraph, keys: Container[str], contents: dict[str, object]) -> dict[str, str]:
    """Return key -> name for the attributes whose key is among ``keys``; every name is unique.

    A name is the full name where only one variable has it; else the path through the graph; a slot's is its
    variable's name, SLOT and the slot's name. contents: by key, equal where two variables hold the same values: of
    such copies, which Keras writes, the first keeps the full name.
    """
    held = list({each.key: each for each in reversed(graph.attributes) if each.key in keys}.values())[::-1]
    by_full_name: dict[str, list[Attribute]] = {}
    for each in held:
        by_full_name.setdefault(each.full_name, []).append(each)
    names: dict[str, str] = {}
    for each in held:
        group = by_full_name[each.full_name]
        copies = "/" in each.full_name and all(contents[other.key] == contents[each.key] for other in group)
        alone = each.full_name and (len(group) == 1 or (copies and each is group[0]))
        names[each.key] = each.full_name if alone else _path_name(graph, each)
    by_node = {each.node: names[each.key] for each in held}
    for each in held:
        variable, slot = graph.slots.get(each.node, (None, ""))
        if variable in by_node and variable not in graph.slots:
            names[each.key] = f"{by_node[variable]}/{SLOT}/{slot}"
    counts = Counter(names.values())
    return {key: check_name(name if name and counts[name] == 1 else key) for key, name in names.items()}


def _path_name(graph: ObjectGraph, attribute: Attribute) -> str:
    # Keras keeps a layer's kernel under _kernel: the property of the layer is the readable name.
    path = graph.path(attribute.node)
    return path if attribute.name == "VARIABLE_VALUE" or not path else f"{path}/{attribute.name}"
