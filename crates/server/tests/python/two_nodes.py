"""Python's Redis client on two nodes that share a cache: each sees at once what the other was told.

    two_nodes.py PORT PORT
"""

import sys
import threading

import redis

ROUNDS = 30
KEYS = 10


def takes_turns(nodes):
    # Every key is read through both before it is written through one, so that both have something to be wrong with.
    for turn in range(ROUNDS):
        writer, reader = nodes[turn % 2], nodes[(turn + 1) % 2]
        for kind in ("order", "view"):
            names = [f"{kind}:{n}" for n in range(KEYS)]
            values = [f"{turn}-{n}" for n in range(KEYS)]
            with writer.pipeline(transaction=False) as pipe:
                for name, value in zip(names, values):
                    pipe.set(name, value)
                assert pipe.execute() == [True] * KEYS
            assert reader.mget(names) == values, "the other node has an older value"
            assert writer.mget(names) == values


def counts_together(nodes):
    def visit(node):
        for _ in range(50):
            node.incr("order:visits")

    visitors = [threading.Thread(target=visit, args=(node,)) for node in nodes * 2]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    for node in nodes:
        assert node.get("order:visits") == "200", node.get("order:visits")


def takes_one_lock(nodes):
    one, two = nodes
    assert one.set("order:lock", "one", nx=True) is True
    assert two.set("order:lock", "two", nx=True) is None
    assert two.get("order:lock") == "one"
    assert two.delete("order:lock") == 1
    assert one.get("order:lock") is None
    assert one.delete("order:lock") == 0


def main(ports):
    nodes = [
        redis.Redis(host="127.0.0.1", port=int(port), decode_responses=True, socket_timeout=20) for port in ports
    ]
    takes_turns(nodes)
    counts_together(nodes)
    takes_one_lock(nodes)
    print("done")


if __name__ == "__main__":
    main(sys.argv[1:])
