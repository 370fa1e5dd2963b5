"""Drives confluent-kafka. What it does, in which words: README.md."""

import json
import select
import sys
import threading

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka import admin as ck

# Seconds for one call of an administrator.
PATIENCE = 30


OUTPUT = threading.Lock()


def say(**event):
    with OUTPUT:
        print(json.dumps(event), flush=True)


def commands():
    for line in sys.stdin:
        ((name, value),) = json.loads(line).items()
        yield name, value


def input_ended():
    return bool(select.select([sys.stdin], [], [], 0)[0]) and not sys.stdin.read(1)


def text(value):
    return None if value is None else value.decode()


class Produce:
    def __init__(self, job):
        settings = {
            "bootstrap.servers": job["bootstrap"],
            "compression.type": job.get("codec", "none"),
            "enable.idempotence": job.get("idempotent", "transactional_id" in job),
            "linger.ms": 20,
            "message.max.bytes": 2_000_000,
            "partitioner": "murmur2_random",
        }
        if "transactional_id" in job:
            settings["transactional.id"] = job["transactional_id"]
        self.producer = Producer(settings)
        self.job = job
        # Acknowledgements are told while no command comes, too.
        threading.Thread(target=self.serve, daemon=True).start()
        if "transactional_id" in job:
            self.attempt("init", lambda: self.producer.init_transactions(PATIENCE))

    def serve(self):
        while True:
            self.producer.poll(0.1)

    def attempt(self, what, call):
        try:
            call()
            say(done=what)
        except KafkaException as error:
            say(failed=what, error=str(error))

    def send(self, record):
        def delivered(error, message):
            if error:
                say(refused=record["id"], error=str(error))
            else:
                say(acked=record["id"], partition=message.partition(), offset=message.offset())

        optional = {name: record[name] for name in ("partition", "timestamp") if name in record}
        if "headers" in record:
            optional["headers"] = list(record["headers"].items())
        try:
            self.producer.produce(
                record["topic"], record["value"], record["key"], on_delivery=delivered, **optional
            )
        except KafkaException as error:
            say(refused=record["id"], error=str(error))

    def offsets(self, at):
        settings = {"bootstrap.servers": self.job["bootstrap"], "group.id": at["group"]}
        consumer = Consumer(settings)
        position = TopicPartition(at["topic"], at["partition"], at["offset"])
        self.producer.send_offsets_to_transaction(
            [position], consumer.consumer_group_metadata(), PATIENCE
        )

    def run(self):
        for name, value in commands():
            if name == "send":
                self.send(value)
                continue
            calls = {
                "flush": self.producer.flush,
                "begin": self.producer.begin_transaction,
                "commit": lambda: self.producer.commit_transaction(PATIENCE),
                "abort": lambda: self.producer.abort_transaction(PATIENCE),
                "offsets": lambda: self.offsets(value),
            }
            self.attempt(name, calls[name])
        self.producer.flush()


def member(job, topic):
    """A consumer that says what it holds, and starts at a time if it is told one."""
    settings = {
        "bootstrap.servers": job["bootstrap"],
        "group.id": job["group"],
        "auto.offset.reset": job.get("reset", "earliest"),
        "isolation.level": job.get("isolation", "read_committed"),
        "enable.auto.commit": False,
        "session.timeout.ms": job.get("session_timeout_ms", 6000),
        "heartbeat.interval.ms": 300,
        "fetch.wait.max.ms": 100,
    }
    consumer = Consumer(settings)

    def assigned(consumer, partitions):
        if "from" in job:
            for partition in partitions:
                partition.offset = job["from"]
            partitions = consumer.offsets_for_times(partitions, PATIENCE)
        consumer.assign(partitions)
        say(assigned=[partition.partition for partition in partitions])

    consumer.subscribe([topic], on_assign=assigned)
    return consumer


def consume(job):
    consumer = member(job, job["topic"])
    while not input_ended():
        messages = consumer.consume(100, 0.1)
        for message in messages:
            if message.error():
                say(failed="consume", error=str(message.error()))
                continue
            say(
                record={
                    "partition": message.partition(),
                    "offset": message.offset(),
                    "timestamp": message.timestamp()[1],
                    "key": text(message.key()),
                    "value": text(message.value()),
                    "headers": {name: text(value) for name, value in message.headers() or []},
                }
            )
        commit(consumer, [message for message in messages if not message.error()])
    consumer.close()
    say(closed=True)


def commit(consumer, messages):
    if not messages:
        return
    try:
        for position in consumer.commit(asynchronous=False):
            if position.offset != OFFSET_INVALID:
                say(committed=position.partition, offset=position.offset)
    except KafkaException as error:
        # A rebalance came first: whoever holds the partition now reads the records again.
        say(failed="commit", error=str(error))


def copy(job):
    consumer = member({**job, "isolation": "read_committed"}, job["source"])
    producer = Producer(
        {
            "bootstrap.servers": job["bootstrap"],
            "transactional.id": job["transactional_id"],
        }
    )
    producer.init_transactions(PATIENCE)
    while not input_ended():
        messages = consumer.consume(10, 0.1)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            producer.produce(job["target"], message.value(), message.key())
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), PATIENCE
        )
        producer.commit_transaction(PATIENCE)
        say(copied=len(messages))
    consumer.close()
    say(closed=True)


class Admin:
    def __init__(self, job):
        self.client = ck.AdminClient({"bootstrap.servers": job["bootstrap"]})

    def only(self, futures):
        (future,) = futures.values()
        return future.result(PATIENCE)

    def create_topic(self, name, partitions, configs):
        topic = ck.NewTopic(name, partitions, 1, config=configs)
        self.only(self.client.create_topics([topic]))
        return True

    def topics(self):
        return list(self.client.list_topics(timeout=PATIENCE).topics)

    def partitions(self, topic):
        return len(self.client.list_topics(topic, PATIENCE).topics[topic].partitions)

    def grow(self, topic, count):
        self.only(self.client.create_partitions([ck.NewPartitions(topic, count)]))
        return True

    def configs(self, topic):
        resource = ck.ConfigResource(ck.ResourceType.TOPIC, topic)
        found = self.only(self.client.describe_configs([resource]))
        return {name: entry.value for name, entry in found.items()}

    def set_config(self, topic, name, value):
        entry = ck.ConfigEntry(name, value, incremental_operation=ck.AlterConfigOpType.SET)
        resource = ck.ConfigResource(ck.ResourceType.TOPIC, topic, incremental_configs=[entry])
        self.only(self.client.incremental_alter_configs([resource]))
        return True

    def trim(self, topic, partition, before):
        position = TopicPartition(topic, partition, before)
        return self.only(self.client.delete_records([position])).low_watermark

    def offset(self, topic, partition, at):
        named = {"earliest": ck.OffsetSpec.earliest(), "latest": ck.OffsetSpec.latest()}
        spec = named.get(at) or ck.OffsetSpec.for_timestamp(at)
        wanted = {TopicPartition(topic, partition): spec}
        return self.only(self.client.list_offsets(wanted)).offset

    def groups(self):
        listed = self.client.list_consumer_groups().result(PATIENCE)
        return [group.group_id for group in listed.valid]

    def group(self, id):
        found = self.only(self.client.describe_consumer_groups([id]))
        return {"state": found.state.name, "members": len(found.members)}

    def group_offset(self, id, topic, partition):
        wanted = ConsumerGroupTopicPartitions(id, [TopicPartition(topic, partition)])
        found = self.only(self.client.list_consumer_group_offsets([wanted]))
        return found.topic_partitions[0].offset

    def set_group_offset(self, id, topic, partition, offset):
        wanted = ConsumerGroupTopicPartitions(id, [TopicPartition(topic, partition, offset)])
        self.only(self.client.alter_consumer_group_offsets([wanted]))
        return True

    def delete_group(self, id):
        self.only(self.client.delete_consumer_groups([id]))
        return True

    def delete_topic(self, name):
        self.only(self.client.delete_topics([name]))
        return True

    def nodes(self):
        return len(self.client.describe_cluster().result(PATIENCE).nodes)

    def run(self):
        for name, arguments in commands():
            try:
                say(answer=getattr(self, name)(**arguments))
            except KafkaException as error:
                say(error=str(error))


job = json.loads(sys.argv[1])
{
    "produce": lambda: Produce(job).run(),
    "consume": lambda: consume(job),
    "copy": lambda: copy(job),
    "admin": lambda: Admin(job).run(),
}[job["job"]]()
