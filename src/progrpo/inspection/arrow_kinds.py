"""What the columns of a parquet file hold, by its schema."""

from collections.abc import Iterator
from typing import Any

from progrpo.inspection.values import MOST_DEPTH, Kind


def kinds_of_schema(schema: Any) -> dict[str, Kind]:
    """Each column's kind, and those of the entries of structs, under dotted names.

    >>> import pyarrow as pa
    >>> list_of_texts = pa.field("responses", pa.list_(pa.string()))
    >>> scored = pa.field("completion", pa.struct([("text", pa.string()), ("score", pa.float64())]))
    >>> kinds_of_schema(pa.schema([list_of_texts, scored]))
    {'responses': 'texts', 'completion': 'object', 'completion.text': 'text', 'completion.score': 'number'}
    """
    return dict(pair for field in schema for pair in _kinds(field.name, field.type, is_listed=False))


def _kinds(name: str, type_: Any, is_listed: bool, depth: int = 0) -> Iterator[tuple[str, Kind]]:
    from pyarrow import types

    kind = _kind(type_)
    yield name, _KIND_OF_LIST[kind] if is_listed else kind
    # A list of structs gives a list for each of their entries.
    struct = type_ if types.is_struct(type_) else type_.value_type if kind == "objects" else None
    if struct is not None and kind != "messages" and depth < MOST_DEPTH:
        for field in struct:
            yield from _kinds(f"{name}.{field.name}", field.type, is_listed or kind == "objects", depth + 1)


_KIND_OF_LIST: dict[Kind, Kind] = {
    "text": "texts",
    "number": "numbers",
    "none": "none",
    "object": "objects",
    "messages": "conversations",
    "texts": "lists",
    "numbers": "lists",
    "objects": "lists",
    "conversations": "lists",
    "lists": "lists",
}


def _kind(type_: Any) -> Kind:
    from pyarrow import types

    if types.is_dictionary(type_):
        return _kind(type_.value_type)
    if types.is_struct(type_):
        return "messages" if any(field.name == "role" for field in type_) else "object"
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        inside = type_.value_type
        if types.is_struct(inside):
            return "messages" if _kind(inside) == "messages" else "objects"
        return _KIND_OF_LIST[_kind(inside)]
    if types.is_null(type_):
        return "none"
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text"
    # Times and bytes count as numbers too: whoever names such a column is told what its values are.
    return "number"
