"""Drives kafka-python. What it does, in which words: README.md."""

import json
import select
import sys

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic, OffsetSpec
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import KafkaError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata


def say(**event):
    print(json.dumps(event), flush=True)


def commands():
    for line in sys.stdin:
        ((name, value),) = json.loads(line).items()
        yield name, value


def input_ended():
    return bool(select.select([sys.stdin], [], [], 0)[0]) and not sys.stdin.read(1)


def text(value):
    return None if value is None else value.decode()


def encoded(value):
    return None if value is None else value.encode()


class Produce:
    def __init__(self, job):
        codec = job.get("codec", "none")
        self.producer = KafkaProducer(
            bootstrap_servers=job["bootstrap"],
            compression_type=None if codec == "none" else codec,
            enable_idempotence=job.get("idempotent", "transactional_id" in job),
            transactional_id=job.get("transactional_id"),
            linger_ms=20,
            max_request_size=2_000_000,
        )
        if "transactional_id" in job:
            self.attempt("init", self.producer.init_transactions)

    def attempt(self, what, call):
        try:
            call()
            say(done=what)
        except KafkaError as error:
            say(failed=what, error=repr(error))

    def send(self, record):
        id = record["id"]
        headers = [(name, value.encode()) for name, value in record.get("headers", {}).items()]
        try:
            future = self.producer.send(
                record["topic"],
                encoded(record["value"]),
                encoded(record["key"]),
                headers=headers,
                partition=record.get("partition"),
                timestamp_ms=record.get("timestamp"),
            )
        except KafkaError as error:
            say(refused=id, error=repr(error))
            return
        future.add_callback(lambda at: say(acked=id, partition=at.partition, offset=at.offset))
        future.add_errback(lambda error: say(refused=id, error=repr(error)))

    def offsets(self, at):
        position = {
            TopicPartition(at["topic"], at["partition"]): OffsetAndMetadata(at["offset"], "", -1)
        }
        group = ConsumerGroupMetadata(at["group"], -1, "", None)
        self.producer.send_offsets_to_transaction(position, group)

    def run(self):
        for name, value in commands():
            if name == "send":
                self.send(value)
                continue
            calls = {
                "flush": self.producer.flush,
                "begin": self.producer.begin_transaction,
                "commit": self.producer.commit_transaction,
                "abort": self.producer.abort_transaction,
                "offsets": lambda: self.offsets(value),
            }
            self.attempt(name, calls[name])
        self.producer.close()


class Tell(ConsumerRebalanceListener):
    """Says what the consumer holds, and starts at a time if it is told one."""

    def __init__(self, consumer, job):
        self.consumer, self.job = consumer, job
        self.to_move = []

    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        # Called while the client polls: it cannot ask the broker from here.
        self.to_move = list(assigned) if "from" in self.job else []
        say(assigned=[partition.partition for partition in self.consumer.assignment()])

    def moved(self):
        """Whether positions were moved, so that what was read before does not count."""
        partitions, self.to_move = self.to_move, []
        if not partitions:
            return False
        ends = self.consumer.end_offsets(partitions)
        times = {partition: self.job["from"] for partition in partitions}
        for partition, found in self.consumer.offsets_for_times(times).items():
            self.consumer.seek(partition, found.offset if found else ends[partition])
        return True


def member(job, topic):
    consumer = KafkaConsumer(
        bootstrap_servers=job["bootstrap"],
        group_id=job["group"],
        auto_offset_reset=job.get("reset", "earliest"),
        isolation_level=job.get("isolation", "read_committed"),
        enable_auto_commit=False,
        session_timeout_ms=job.get("session_timeout_ms", 6000),
        heartbeat_interval_ms=300,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=2_000_000,
    )
    listener = Tell(consumer, job)
    consumer.subscribe([topic], listener=listener)
    return consumer, listener


def consume(job):
    consumer, listener = member(job, job["topic"])
    while not input_ended():
        batch = [record for records in consumer.poll(100).values() for record in records]
        if listener.moved():
            continue
        for record in batch:
            say(
                record={
                    "partition": record.partition,
                    "offset": record.offset,
                    "timestamp": record.timestamp,
                    "key": text(record.key),
                    "value": text(record.value),
                    "headers": {name: text(value) for name, value in record.headers or []},
                }
            )
        if batch:
            commit(consumer, batch)
    consumer.close()
    say(closed=True)


def next_offsets(batch):
    """For each partition the offset after its last record: records come in order."""
    return {
        TopicPartition(record.topic, record.partition): OffsetAndMetadata(record.offset + 1, "", -1)
        for record in batch
    }


def commit(consumer, batch):
    offsets = next_offsets(batch)
    try:
        consumer.commit(offsets)
    except KafkaError as error:
        # A rebalance came first: whoever holds the partition now reads the records again.
        say(failed="commit", error=repr(error))
        return
    for partition, position in offsets.items():
        say(committed=partition.partition, offset=position.offset)


def copy(job):
    consumer, _ = member({**job, "isolation": "read_committed"}, job["source"])
    producer = KafkaProducer(
        bootstrap_servers=job["bootstrap"], transactional_id=job["transactional_id"]
    )
    producer.init_transactions()
    while not input_ended():
        polled = consumer.poll(100, max_records=10)
        batch = [record for records in polled.values() for record in records]
        if not batch:
            continue
        producer.begin_transaction()
        for record in batch:
            producer.send(job["target"], record.value, record.key)
        producer.send_offsets_to_transaction(next_offsets(batch), consumer.group_metadata())
        producer.commit_transaction()
        say(copied=len(batch))
    consumer.close()
    producer.close()
    say(closed=True)


def all_went_well(results):
    """Some calls answer an error where others raise it."""
    if set(results.values()) != {"OK"}:
        raise KafkaError(str(results))
    return True


class Admin:
    def __init__(self, job):
        self.client = KafkaAdminClient(bootstrap_servers=job["bootstrap"])

    def create_topic(self, name, partitions, configs):
        self.client.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
        return True

    def topics(self):
        return self.client.list_topics()

    def partitions(self, topic):
        (found,) = self.client.describe_topics([topic])
        return len(found["partitions"])

    def grow(self, topic, count):
        self.client.create_partitions({topic: NewPartitions(count)})
        return True

    def configs(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        found = self.client.describe_configs([resource], config_filter="all")["topic"][topic]
        return {name: entry["value"] for name, entry in found.items()}

    def set_config(self, topic, name, value):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})
        return all_went_well(self.client.alter_configs([resource])["topic"])

    def trim(self, topic, partition, before):
        position = TopicPartition(topic, partition)
        return self.client.delete_records({position: before})[position]["low_watermark"]

    def offset(self, topic, partition, at):
        spec = {"earliest": OffsetSpec.EARLIEST, "latest": OffsetSpec.LATEST}.get(at, at)
        position = TopicPartition(topic, partition)
        return self.client.list_partition_offsets({position: spec})[position].offset

    def groups(self):
        return [group["group_id"] for group in self.client.list_groups()]

    def group(self, id):
        found = self.client.describe_groups([id])
        found = found[id] if isinstance(found, dict) else found[0]
        return {"state": found["group_state"].upper(), "members": len(found["members"])}

    def group_offset(self, id, topic, partition):
        position = TopicPartition(topic, partition)
        found = self.client.list_group_offsets({id: [position]})
        return found[id][position].offset

    def set_group_offset(self, id, topic, partition, offset):
        position = TopicPartition(topic, partition)
        self.client.alter_group_offsets(id, {position: OffsetAndMetadata(offset, "", -1)})
        return True

    def delete_group(self, id):
        return all_went_well(self.client.delete_groups([id]))

    def delete_topic(self, name):
        self.client.delete_topics([name])
        return True

    def nodes(self):
        return len(self.client.describe_cluster()["brokers"])

    def run(self):
        for name, arguments in commands():
            try:
                say(answer=getattr(self, name)(**arguments))
            except KafkaError as error:
                say(error=repr(error))
        self.client.close()


job = json.loads(sys.argv[1])
{
    "produce": lambda: Produce(job).run(),
    "consume": lambda: consume(job),
    "copy": lambda: copy(job),
    "admin": lambda: Admin(job).run(),
}[job["job"]]()
