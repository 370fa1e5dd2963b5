// Drives KafkaJS. What it does, in which words: README.md.

import { createInterface } from "node:readline";
import * as zstd from "@bokuweb/zstd-wasm";
import kafkajs from "kafkajs";
import snappy from "kafkajs-snappy";
import lz4 from "lz4-napi";

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners, logLevel } =
  kafkajs;

CompressionCodecs[CompressionTypes.Snappy] = snappy;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (buffer) => lz4.decompressFrame(buffer),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
});

const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
};

const job = JSON.parse(process.argv[2]);
const kafka = new Kafka({ brokers: [job.bootstrap], logLevel: logLevel.NOTHING });

function say(event) {
  process.stdout.write(JSON.stringify(event) + "\n");
}

async function* commands() {
  for await (const line of createInterface({ input: process.stdin })) {
    yield Object.entries(JSON.parse(line))[0];
  }
}

async function inputEnded() {
  for await (const _ of commands());
}

const text = (value) => (value === null ? null : value.toString());

async function attempt(what, call) {
  try {
    await call();
    say({ done: what });
  } catch (error) {
    say({ failed: what, error: String(error) });
  }
}

// KafkaJS makes one request of each call, and answers the first offset of each partition. So sends
// are collected until a flush, and the partitioner remembers where each of them went.
async function produce() {
  const partitions = new Map();
  const transactional = "transactional_id" in job;
  const producer = kafka.producer({
    idempotent: job.idempotent ?? transactional,
    transactionalId: job.transactional_id,
    maxInFlightRequests: 1,
    createPartitioner: () => {
      const choose = Partitioners.DefaultPartitioner();
      return (given) => {
        const partition = choose(given);
        partitions.set(given.message, partition);
        return partition;
      };
    },
  });
  if (transactional) await attempt("init", () => producer.connect());
  else await producer.connect();
  let transaction = null;
  let waiting = [];

  async function flush() {
    const sent = waiting;
    waiting = [];
    if (sent.length === 0) return;
    const topics = new Map();
    for (const { topic, message } of sent) {
      if (!topics.has(topic)) topics.set(topic, []);
      topics.get(topic).push(message);
    }
    const topicMessages = [...topics].map(([topic, messages]) => ({ topic, messages }));
    const options = { topicMessages, acks: -1, compression: CODECS[job.codec ?? "none"] };
    try {
      const answers = await (transaction ?? producer).sendBatch(options);
      const next = new Map();
      for (const { topicName, partition, baseOffset } of answers) {
        next.set(`${topicName}/${partition}`, Number(baseOffset));
      }
      for (const { id, topic, message } of sent) {
        const partition = partitions.get(message);
        const at = `${topic}/${partition}`;
        say({ acked: id, partition, offset: next.get(at) });
        next.set(at, next.get(at) + 1);
        partitions.delete(message);
      }
    } catch (error) {
      for (const { id } of sent) say({ refused: id, error: String(error) });
    }
  }

  for await (const [name, value] of commands()) {
    switch (name) {
      case "send": {
        const { id, topic, ...message } = value;
        if ("timestamp" in message) message.timestamp = String(message.timestamp);
        waiting.push({ id, topic, message });
        break;
      }
      case "flush":
        await attempt(name, flush);
        break;
      case "begin":
        await attempt(name, async () => {
          transaction = await producer.transaction();
        });
        break;
      case "commit":
      case "abort":
        await flush();
        await attempt(name, () => transaction[name]());
        transaction = null;
        break;
      case "offsets":
        await attempt(name, () =>
          transaction.sendOffsets({
            consumerGroupId: value.group,
            topics: [
              {
                topic: value.topic,
                partitions: [{ partition: value.partition, offset: String(value.offset) }],
              },
            ],
          }),
        );
        break;
    }
  }
  await flush();
  await producer.disconnect();
}

function member(topic, isolation) {
  const consumer = kafka.consumer({
    groupId: job.group,
    readUncommitted: isolation === "read_uncommitted",
    sessionTimeout: job.session_timeout_ms ?? 6000,
    heartbeatInterval: 300,
    rebalanceTimeout: 10000,
    maxWaitTimeInMs: 100,
    maxBytesPerPartition: 2_000_000,
  });
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    say({ assigned: payload.memberAssignment[topic] ?? [] });
  });
  return consumer;
}

async function subscribe(consumer, topic) {
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: (job.reset ?? "earliest") === "earliest" });
}

// KafkaJS seeks only once records flow, so the group's offsets are set before it has members.
async function startAt(topic, time) {
  const admin = kafka.admin();
  await admin.connect();
  const partitions = await admin.fetchTopicOffsetsByTimestamp(topic, time);
  await admin.setOffsets({ groupId: job.group, topic, partitions });
  await admin.disconnect();
}

async function consume() {
  const { topic } = job;
  if ("from" in job) await startAt(topic, job.from);
  const consumer = member(topic, job.isolation ?? "read_committed");
  await subscribe(consumer, topic);
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, heartbeat }) => {
      for (const message of batch.messages) {
        const headers = Object.entries(message.headers).map(([name, value]) => [name, text(value)]);
        say({
          record: {
            partition: batch.partition,
            offset: Number(message.offset),
            timestamp: Number(message.timestamp),
            key: text(message.key),
            value: text(message.value),
            headers: Object.fromEntries(headers),
          },
        });
      }
      await heartbeat();
      const offset = Number(batch.lastOffset()) + 1;
      await consumer.commitOffsets([{ topic, partition: batch.partition, offset: String(offset) }]);
      say({ committed: batch.partition, offset });
    },
  });
  await inputEnded();
  await consumer.disconnect();
  say({ closed: true });
}

async function copy() {
  const consumer = member(job.source, "read_committed");
  const producer = kafka.producer({
    transactionalId: job.transactional_id,
    maxInFlightRequests: 1,
    idempotent: true,
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  await subscribe(consumer, job.source);
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      const transaction = await producer.transaction();
      const messages = batch.messages.map(({ key, value }) => ({ key, value }));
      await transaction.send({ topic: job.target, messages });
      const offset = String(Number(batch.lastOffset()) + 1);
      await transaction.sendOffsets({
        consumerGroupId: job.group,
        topics: [{ topic: job.source, partitions: [{ partition: batch.partition, offset }] }],
      });
      await transaction.commit();
      say({ copied: messages.length });
    },
  });
  await inputEnded();
  await consumer.disconnect();
  await producer.disconnect();
  say({ closed: true });
}

const administer = {
  async create_topic(admin, { name, partitions, configs }) {
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }));
    const topic = { topic: name, numPartitions: partitions, replicationFactor: 1, configEntries };
    if (!(await admin.createTopics({ topics: [topic] }))) throw new Error("TOPIC_ALREADY_EXISTS");
    return true;
  },
  topics: (admin) => admin.listTopics(),
  async partitions(admin, { topic }) {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    return topics[0].partitions.length;
  },
  async grow(admin, { topic, count }) {
    await admin.createPartitions({ topicPartitions: [{ topic, count }] });
    return true;
  },
  async configs(admin, { topic }) {
    const wanted = { type: ConfigResourceTypes.TOPIC, name: topic };
    const { resources } = await admin.describeConfigs({ resources: [wanted] });
    const entries = resources[0].configEntries.map((it) => [it.configName, it.configValue]);
    return Object.fromEntries(entries);
  },
  async set_config(admin, { topic, name, value }) {
    const resource = {
      type: ConfigResourceTypes.TOPIC,
      name: topic,
      configEntries: [{ name, value }],
    };
    await admin.alterConfigs({ resources: [resource] });
    return true;
  },
  async trim(admin, { topic, partition, before }) {
    const offset = String(before);
    await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset }] });
    return administer.offset(admin, { topic, partition, at: "earliest" });
  },
  async offset(admin, { topic, partition, at }) {
    const named = { earliest: "low", latest: "high" }[at];
    const found = named
      ? await admin.fetchTopicOffsets(topic)
      : await admin.fetchTopicOffsetsByTimestamp(topic, at);
    return Number(found.find((it) => it.partition === partition)[named ?? "offset"]);
  },
  async groups(admin) {
    return (await admin.listGroups()).groups.map((group) => group.groupId);
  },
  async group(admin, { id }) {
    const { groups } = await admin.describeGroups([id]);
    return { state: groups[0].state.toUpperCase(), members: groups[0].members.length };
  },
  async group_offset(admin, { id, topic, partition }) {
    const [found] = await admin.fetchOffsets({ groupId: id, topics: [topic] });
    return Number(found.partitions.find((it) => it.partition === partition).offset);
  },
  async set_group_offset(admin, { id, topic, partition, offset }) {
    const partitions = [{ partition, offset: String(offset) }];
    await admin.setOffsets({ groupId: id, topic, partitions });
    return true;
  },
  async delete_group(admin, { id }) {
    await admin.deleteGroups([id]);
    return true;
  },
  async delete_topic(admin, { name }) {
    await admin.deleteTopics({ topics: [name] });
    return true;
  },
  async nodes(admin) {
    return (await admin.describeCluster()).brokers.length;
  },
};

async function administrate() {
  const admin = kafka.admin();
  await admin.connect();
  for await (const [name, value] of commands()) {
    try {
      say({ answer: await administer[name](admin, value) });
    } catch (error) {
      say({ error: String(error) });
    }
  }
  await admin.disconnect();
}

await zstd.init();
await { produce, consume, copy, admin: administrate }[job.job]();
