"""Programs that generate in worker processes, threads and executors, and inside the session's graph."""

import asyncio
import json
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import gpt_2_simple as gpt2

sess = None


def load():
    global sess
    sess = gpt2.start_tf_sess()
    gpt2.load_gpt2(sess)


def generate(prefix):
    return gpt2.generate(sess, prefix=prefix, length=5, top_k=1, return_as_list=True)[0]


def generate_in_graph(prefix):
    with sess.graph.as_default():
        return generate(prefix)


async def in_executors(prefixes):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = [
            loop.run_in_executor(executor, generate_in_graph, prefix)
            for executor in (None, pool)
            for prefix in prefixes
        ]
        return await asyncio.gather(*answers)


async def on_startup():
    """Create the session in an event handler."""
    load()


def serve(connection):
    """Run a server's worker, which imports the program again."""
    asyncio.run(on_startup())
    connection.send(generate("the cat"))


def main():
    prefixes = ["the cat", "the dog"]
    results = {"forked": [], "workers": []}
    with multiprocessing.get_context("fork").Pool(2, initializer=load, maxtasksperchild=1) as pool:
        results["forked"] += pool.map(generate, prefixes * 2)
    load()
    results["main"] = [generate(prefix) for prefix in prefixes]
    with multiprocessing.get_context("fork").Pool(
        1, initializer=load
    ) as pool:  # forked after the parent has loaded the model
        results["forked"] += pool.map(generate, prefixes)
    spawned = multiprocessing.get_context("spawn")
    for _ in range(2):
        receiver, sender = spawned.Pipe()
        process = spawned.Process(target=serve, args=(sender,))
        process.start()
        results["workers"].append(receiver.recv())
        process.join()
    with ThreadPool(4) as pool:
        results["threads"] = pool.map(generate, prefixes * 4)
    results["executors"] = asyncio.run(in_executors(prefixes))
    print(json.dumps(results), file=sys.stderr)


if __name__ == "__main__":
    main()
