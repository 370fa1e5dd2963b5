// A business row and the message about it in one transaction, from Node.
//
//     npm install
//     DATABASE_URL=postgres://localhost/shop node enqueue.mjs
//
// Any language can do this: it is one SQL call inside the transaction that writes the row. Prints
// the ids of the message that was committed and of the one that was rolled back, as JSON.

import pg from 'pg'

/** Writes the order and enqueues the message; the caller's transaction decides about both. */
async function placeOrder(client, customer, amountCents) {
  const inserted = await client.query(
    'insert into orders (customer, amount_cents) values ($1, $2) returning id',
    [customer, amountCents],
  )
  const order = { id: Number(inserted.rows[0].id), customer, amount_cents: amountCents }
  const enqueued = await client.query(
    "select outbox.enqueue('orders.placed', $1, key => $2) as id",
    [JSON.stringify(order), customer],
  )
  return enqueued.rows[0].id
}

const client = new pg.Client({ connectionString: process.env.DATABASE_URL })
await client.connect()
try {
  await client.query('begin')
  const committed = await placeOrder(client, 'node', 3400)
  await client.query('commit')

  await client.query('begin')
  const rolledBack = await placeOrder(client, 'node', 99)
  await client.query('rollback')

  console.log(JSON.stringify({ committed, rolled_back: rolledBack }))
} finally {
  await client.end()
}
