"""A business row and the message about it in one transaction, from Python.

    pip install -r requirements.txt
    DATABASE_URL=postgres://localhost/shop python enqueue.py

Any language can do this: it is one SQL call inside the transaction that writes the row. Prints
the ids of the message that was committed and of the one that was rolled back, as JSON.
"""

import json
import os

import psycopg
from psycopg.types.json import Jsonb


def place_order(connection, customer, amount_cents):
    """Writes the order and enqueues the message; the caller's transaction decides about both."""
    order_id = connection.execute(
        "insert into orders (customer, amount_cents) values (%s, %s) returning id",
        (customer, amount_cents),
    ).fetchone()[0]
    order = {"id": order_id, "customer": customer, "amount_cents": amount_cents}
    return connection.execute(
        "select outbox.enqueue('orders.placed', %s, key => %s)",
        (Jsonb(order), customer),
    ).fetchone()[0]


def main():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        with connection.transaction():
            committed = place_order(connection, "python", 1200)

        with connection.transaction() as transaction:
            rolled_back = place_order(connection, "python", 99)
            raise psycopg.Rollback(transaction)

    print(json.dumps({"committed": str(committed), "rolled_back": str(rolled_back)}))


if __name__ == "__main__":
    main()
