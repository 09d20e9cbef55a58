#!/usr/bin/env python3
"""Command: tokens a second of scoring a long text on the CPU, beside other engines, which take turns.

    python benchmarks/scoring.py --peer-python OTHER_ENVIRONMENT/bin/python

The text is ids, in windows of 1024 that begin anew, each id's log-probability added up: ours by
`gpt2.engine.scoring.scores`; transformers by its forward pass and PyTorch's cross entropy; llama.cpp by its decode with
the logits of all positions, without what comes after. Same weights for all, those of --model or random ones of 124M
size; the sums have to agree. "ours/peer" is the median of the pairs' ratios of speed, with its 95% interval. The last
line is JSON with everything.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent))
from peers.turns import OURS, Bench, Failed, find_engines, ratios

WINDOW = 1024
AGREE = 1e-4  # of the nats


def measure(bench, peers, precisions, tokens, pairs):
    request, rows = {"score": tokens, "window": WINDOW}, []
    for precision in precisions:
        for peer in [peer for peer in peers if precision in dict(peer.precisions)]:
            contestants = [(OURS, precision), (peer, dict(peer.precisions)[precision])]
            try:
                answers = bench.take_turns(contestants, request, pairs)
            except Failed as failure:
                print(f"left out: {failure}", flush=True)
                continue
            nats = [said[0]["nats"] for said in answers]
            if precision == "float32" and nats[1] is not None and abs(nats[0] / nats[1] - 1) > AGREE:
                raise Failed(f"{peer.name} comes to {nats[1]} nats where ours are {nats[0]}: not the same model")
            ratio, interval = ratios(*answers)
            speeds = [tokens / statistics.median(answer["seconds"] for answer in said) for said in answers]
            peaks = [max(answer["peak_mb"] for answer in said) for said in answers]
            names = [OURS.name, f"{peer.name} {contestants[1][1]}"]
            shown = ", ".join(f"{name} {speed:.0f} tokens/s" for name, speed in zip(names, speeds))
            ends = "-".join(f"{end:.2f}" for end in interval)
            print(f"{precision}: {shown}; ours/peer {ratio:.2f} ({ends}); peak MB {peaks[0]:.0f}, {peaks[1]:.0f}")
            rows.append(
                {"precision": precision, "peer": peer.name, "ratio": ratio, "interval": interval, "nats": nats}
                | {"tokens_per_s": speeds, "peak_mb": peaks, "answers": answers}
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model directory")
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--tokens", type=int, default=4 * WINDOW)
    parser.add_argument("--pairs", type=int, default=7, help="rounds, after one for warm-up")
    parser.add_argument("--peers", nargs="*", default=["transformers", "llama.cpp"])
    parser.add_argument("--peer-python", nargs="+", default=[], help="Pythons in which the peers may be installed")
    parser.set_defaults(before=None, original=None, original_python=None)
    options = parser.parse_args()
    engines, missing = find_engines(options)
    if missing:
        print(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as temporary:
        model = options.model or Path(temporary, "model")
        if not options.model:
            subprocess.run([sys.executable, HERE.parent / "peers" / OURS.script, "new", str(model)], check=True)
        bench = Bench(model, Path(temporary), engines, None)
        peers = [engine for engine in engines if engine != OURS]
        print(json.dumps(measure(bench, peers, options.precision, options.tokens, options.pairs)))


if __name__ == "__main__":
    main()
