"""The names of functions as valgrind spells them, without what only makes them long."""

import re


def short(name: str) -> str:
    """A function's name without what differs from build to build or only makes it long."""
    name = re.sub(r"::h[0-9a-f]{16}|'\d+$|\[[0-9a-f]{8,}\]|@@?GLIBC\w*[\d.]*", "", name)
    # Of a library without its symbols only addresses are known.
    name = re.sub(r"^0x[0-9a-f]+$", "(unnamed)", name)
    # The variants for this or that processor.
    name = re.sub(r"^_*(mem\w+?|str\w+?)_(avx|sse|evex|erms|unaligned)\w*$", r"\1", name)
    # The parameters of types, innermost first; but not `<T as Trait>`, nor what is dropped.
    before = None
    while before != name:
        before = name
        name = re.sub(r"(?<=[\w:])(?<!drop_in_place)<[^<>]*>", "", name)
    name = name.replace("::{{closure}}", "::{closure}").replace("::::", "::")
    # A type's modules: a::b::c::Type is a::Type.
    name = re.sub(r"\b([a-z]\w*)::(?:[a-z]\w*::)+(?=[A-Z])", r"\1::", name)
    return name if len(name) <= 110 else f"{name[:109]}…"
