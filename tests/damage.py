"""Ways in which files are damaged."""

import json


def some_bytes(rng, content):
    content = bytearray(content)
    at, size = rng.randrange(len(content)), rng.choice([1, 1, 2, 8, 64])
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(size):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        del content[at : at + size]
    elif kind == 3:
        content[at:at] = rng.randbytes(size)
    else:
        content[at:at] = rng.choice([b'"', b"\n", b" ", b"\0", b"{", b"]", b",", b"\xff", b"\\ud800", b"-", b"0"])
    return bytes(content)


def odd_value(rng):
    """JSON that is valid and no hyperparameter and no id, or too much of one."""
    huge = rng.choice(["1" + "0" * 9, "9" * 20, "9" * 4000, "9" * 5000, "1e400", "-1", "0", "1.5", "NaN", "-Infinity"])
    depth = rng.choice([10, 900, 3000, 100_000])
    deep = rng.choice(["[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth])
    return rng.choice([huge, huge, deep, "null", "true", '"x"', '"\\ud800"', "[1]", "{}"])


def odd_json(rng, content):
    """One value of an object replaced, or all of it."""
    values = json.loads(content)
    victim = rng.choice(list(values))
    values[victim] = "VICTIM"
    value = odd_value(rng)
    return (value if rng.random() < 0.2 else json.dumps(values).replace('"VICTIM"', value)).encode()
