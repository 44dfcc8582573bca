"""What was allocated, read from the profile that valgrind's dhat writes.

It has every place of an allocation with its whole stack: what is counted has `measured` in it and no `left_out`."""

import json
import re
from collections import Counter

from names import short

# As many as a stack has, from the allocator to `measured`.
CALLERS = 250
COUNTED = re.compile(r"^h3cast_instructions\S*::measured\b")
LEFT_OUT = re.compile(r"^h3cast_instructions\S*::left_out\b")
# What allocates for others, and so names nothing.
PASSING_ON = re.compile(r"^(malloc|calloc|realloc|posix_memalign|aligned_alloc|memalign)$|^<?(alloc|hashbrown|__rust|__rdl)\b|^__r")
# The key of what is counted: blocks, bytes, and bytes at the end.
KEYS = {"allocations": "tbk", "bytes allocated": "tb", "bytes kept": "eb"}


def read(profile: str, what: str) -> tuple[int, Counter[str]]:
    """Blocks or bytes: the total, and what each function has allocated."""
    profile = json.loads(profile)
    frames = [name(frame) for frame in profile["ftbl"]]
    total, functions = 0, Counter()
    for place in profile["pps"]:
        stack = [frames[at] for at in place["fs"]]
        counted = next((at for at, frame in enumerate(stack) if COUNTED.match(frame)), None)
        if counted is None or any(LEFT_OUT.match(frame) for frame in stack[:counted]):
            continue
        cost = place[KEYS[what]]
        total += cost
        by = next((frame for frame in stack if not PASSING_ON.match(frame)), stack[0])
        functions[short(by)] += cost
    return total, functions


def name(frame: str) -> str:
    """`0x12345: function (file.rs:12)` without the address and the place."""
    frame = re.sub(r"^0x[0-9A-Fa-f]+: ", "", frame)
    return re.sub(r" \((in )?[^()]*\)$", "", frame)
