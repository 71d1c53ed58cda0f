"""Prints the rows of a table of a SQLite file as `key|value`, with Python's own SQLite and nothing of tidegate.

    rows.py FILE TABLE
"""

import sqlite3
import sys
import time

sys.stdout.reconfigure(encoding="utf-8")
file, table = sys.argv[1:]
database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
now = int(time.time() * 1000)
query = f'select key, value from "{table}" where expires_at is null or expires_at > ?'
for key, value in database.execute(query, (now,)):
    print(f"{key}|{value}")
