"""Random damage to files."""

import json
from random import Random


def damage_bytes(rng: Random, content: bytes) -> bytes:
    """Flip bits, cut the content off, remove bytes, or insert random bytes or bytes that matter to parsers."""
    damaged = bytearray(content)
    position, size = rng.randrange(len(damaged)), rng.choice([1, 1, 2, 8, 64])
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(size):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del damaged[position:]
    elif kind == 2:
        del damaged[position : position + size]
    elif kind == 3:
        damaged[position:position] = rng.randbytes(size)
    else:
        special = [b'"', b"\n", b" ", b"\0", b"{", b"]", b",", b"\xff", b"\\ud800", b"-", b"0"]
        damaged[position:position] = rng.choice(special)
    return bytes(damaged)


def odd_json_value(rng: Random) -> str:
    """Return JSON text that is neither a hyperparameter nor an id, or an absurdly large or deep value."""
    huge = rng.choice(["1" + "0" * 9, "9" * 20, "9" * 4000, "9" * 5000, "1e400", "-1", "0", "1.5", "NaN", "-Infinity"])
    depth = rng.choice([10, 900, 3000, 100_000])
    deep = rng.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth])
    return rng.choice([huge, huge, deep, "null", "true", '"x"', '"\\ud800"', "[1]", "{}"])


def damage_json(rng: Random, content: bytes) -> bytes:
    """Replace one value of a JSON object, or all of it, with an odd value."""
    values = json.loads(content)
    victim = rng.choice(list(values))
    values[victim] = "VICTIM"
    odd_value = odd_json_value(rng)
    return (odd_value if rng.random() < 0.2 else json.dumps(values).replace('"VICTIM"', odd_value)).encode()
