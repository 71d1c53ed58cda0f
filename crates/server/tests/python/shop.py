"""A small shop on Python's Redis client, which knows nothing of tidegate.

    shop.py PORT write   takes orders, keeps sessions, counts page views; prints the rows a database must then have
    shop.py PORT read    finds all of it again

The server has three classes: orders are written through, sessions written back, page views written around.
"""

import json
import sys
import threading
import time

import redis

ORDERS = {f"order:{n}": json.dumps({"id": n, "item": "tea", "cents": 320 * n}) for n in range(1, 51)}
SESSIONS = {f"session:{n}": json.dumps({"user": f"user{n}", "page": 30}) for n in range(1, 21)}
VIEWS = {"view:home": "100", "view:caf\u00e9": "1"}


def take_orders(shop):
    for key, order in ORDERS.items():
        assert shop.set(key, order) is True
        assert shop.get(key) == order
    assert shop.set("order:1", "again", nx=True) is None, "an order is not taken twice"
    assert shop.set("order:cancelled", "{}") is True
    assert shop.delete("order:cancelled") == 1
    assert shop.get("order:cancelled") is None


def keep_sessions(shop):
    # Each page a visitor sees writes the session again; the database will see few of these writes.
    for page in range(1, 31):
        with shop.pipeline(transaction=False) as pipe:
            for key in SESSIONS:
                user = key.replace("session:", "user")
                pipe.set(key, json.dumps({"user": user, "page": page}))
            assert pipe.execute() == [True] * len(SESSIONS)
    assert shop.mget(list(SESSIONS)) == list(SESSIONS.values()), "a visitor sees the own last page"


def count_views(shop):
    def visit():
        for _ in range(25):
            shop.incr("view:home")

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert shop.get("view:home") == "100", shop.get("view:home")

    assert shop.set("view:caf\u00e9", 1, ex=3600) is True
    assert 3590 <= shop.ttl("view:caf\u00e9") <= 3600
    assert shop.get("view:caf\u00e9") == "1"
    assert shop.ttl("view:home") == -1

    assert shop.set("view:flash", 1, px=50) is True
    assert shop.get("view:flash") == "1"
    time.sleep(0.06)
    assert shop.get("view:flash") is None, "it lived for 50 ms"
    assert shop.ttl("view:flash") == -2


def find_again(shop):
    for expected in (ORDERS, SESSIONS, VIEWS):
        assert shop.mget(list(expected)) == list(expected.values())
    assert shop.get("order:cancelled") is None
    assert 0 < shop.ttl("view:caf\u00e9") <= 3600
    assert shop.exists("view:flash", "order:1") == 1
    found = {key for key in shop.scan_iter(match="session:*")}
    assert found == set(SESSIONS), found


def main(port, what):
    shop = redis.Redis(host="127.0.0.1", port=int(port), decode_responses=True, socket_timeout=20)
    assert shop.ping() is True
    if what == "write":
        take_orders(shop)
        keep_sessions(shop)
        count_views(shop)
        for rows in (ORDERS, SESSIONS, VIEWS):
            for key, value in rows.items():
                print(f"{key}|{value}")
    else:
        find_again(shop)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    main(*sys.argv[1:])
