"""What a state holds besides tensors, as JSON: values come back with their types, to the last bit.

JSON's own kinds stand for themselves (a dict too, if its keys are texts that do not begin with "$"). All else
is an object with one key, the tag:

    {"$tuple": [...]}  {"$set": [...]}  {"$frozenset": [...]}  {"$dict": [[key, value], ...]}
    {"$slice": [a, b, c]}  {"$range": [a, b, c]}  {"$complex": [re, im]}  {"$bytes": base64}
    {"$int": hex} beyond 64 bits  {"$float": "nan" | "inf" | "-inf" | 16 hex digits}
    {"$str": base64} of a text that is no Unicode  {"$bytearray": base64}
    {"$scalar": [dtype, base64]}  {"$array": [dtype, shape, base64]}  {"$numpy_dtype": name}     (numpy)
    {"$inline": [dtype, shape, base64]}  {"$dtype": name}  {"$device": name}  {"$size": [...]}   (torch)
    {"$tensor": name}  a tensor of the shard files

Subclasses are refused, because they would come back as something else: enums, named tuples, a program's own
classes. `OrderedDict` and `defaultdict` come back as dict. Nothing is ever executed or imported by name.
"""

from __future__ import annotations

from .tagged_decode import TensorOf, decode
from .tagged_encode import NameOf, Path, Reference, encode

__all__ = ["NameOf", "Path", "Reference", "TensorOf", "decode", "encode"]
