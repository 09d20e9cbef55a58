"""As programs that generate in worker processes, threads and executors, and inside the session's graph."""

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


def write(prefix):
    return gpt2.generate(sess, prefix=prefix, length=5, top_k=1, return_as_list=True)[0]


def write_in_the_graph(prefix):
    with sess.graph.as_default():
        return write(prefix)


async def in_executors(prefixes):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = [
            loop.run_in_executor(place, write_in_the_graph, prefix) for place in (None, pool) for prefix in prefixes
        ]
        return await asyncio.gather(*answers)


async def on_startup():
    """A session that is made in an event handler."""
    load()


def serve(connection):
    """One of a server's workers, which imports the program anew."""
    asyncio.run(on_startup())
    connection.send(write("the cat"))


def main():
    prefixes = ["the cat", "the dog"]
    found = {"forked": [], "workers": []}
    with multiprocessing.get_context("fork").Pool(2, initializer=load, maxtasksperchild=1) as pool:
        found["forked"] += pool.map(write, prefixes * 2)
    load()
    found["main"] = [write(prefix) for prefix in prefixes]
    with multiprocessing.get_context("fork").Pool(1, initializer=load) as pool:  # after the parent has loaded too
        found["forked"] += pool.map(write, prefixes)
    spawned = multiprocessing.get_context("spawn")
    for _ in range(2):
        here, there = spawned.Pipe()
        process = spawned.Process(target=serve, args=(there,))
        process.start()
        found["workers"].append(here.recv())
        process.join()
    with ThreadPool(4) as pool:
        found["threads"] = pool.map(write, prefixes * 4)
    found["executors"] = asyncio.run(in_executors(prefixes))
    print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main()
