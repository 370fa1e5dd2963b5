//! Drives rdkafka, the crate around librdkafka. What it does, in which words: `README.md`.

#![allow(clippy::print_stdout, reason = "its output is its protocol")]

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    let job = std::env::args().nth(1).context("the job is missing")?;
    let job: Value = serde_json::from_str(&job)?;
    match text(&job, "job") {
        "produce" => produce(&job),
        "consume" => consume(&job),
        "copy" => copy(&job),
        "admin" => administrate(&job),
        other => bail!("there is no job {other:?}"),
    }
}

fn say(event: &Value) {
    println!("{event}");
}

fn text<'a>(given: &'a Value, name: &str) -> &'a str {
    given[name].as_str().unwrap_or_default()
}

fn number(given: &Value, name: &str) -> i64 {
    given[name].as_i64().unwrap_or_default()
}

fn partition(given: &Value) -> Result<i32> {
    Ok(i32::try_from(number(given, "partition"))?)
}

/// The commands on the input, until it ends.
fn commands() -> impl Iterator<Item = Result<(String, Value)>> {
    std::io::stdin().lock().lines().map(|line| {
        let command: BTreeMap<String, Value> = serde_json::from_str(&line?)?;
        command.into_iter().next().context("an empty command")
    })
}

/// Becomes true when the input ends.
fn input_ended() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    ended
}

fn settings(job: &Value) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", text(job, "bootstrap"));
    settings
}

/// Says what became of each record.
struct Tell;

impl ClientContext for Tell {}

impl ProducerContext for Tell {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, id: usize) {
        say(&match result {
            Ok(at) => json!({"acked": id, "partition": at.partition(), "offset": at.offset()}),
            Err((error, _)) => json!({"refused": id, "error": error.to_string()}),
        });
    }
}

fn attempt(what: &str, result: Result<(), KafkaError>) {
    say(&match result {
        Ok(()) => json!({"done": what}),
        Err(error) => json!({"failed": what, "error": error.to_string()}),
    });
}

fn produce(job: &Value) -> Result<()> {
    let transactional = job["transactional_id"].as_str();
    let idempotent = job["idempotent"]
        .as_bool()
        .unwrap_or(transactional.is_some());
    let mut settings = settings(job);
    settings
        .set("compression.type", job["codec"].as_str().unwrap_or("none"))
        .set("enable.idempotence", idempotent.to_string())
        .set("linger.ms", "20")
        .set("message.max.bytes", "2000000")
        .set("partitioner", "murmur2_random");
    if let Some(id) = transactional {
        settings.set("transactional.id", id);
    }
    let producer = ThreadedProducer::<Tell>::from_config_and_context(&settings, Tell)?;
    if transactional.is_some() {
        attempt("init", producer.init_transactions(PATIENCE));
    }
    for command in commands() {
        let (name, value) = command?;
        match name.as_str() {
            "send" => send(&producer, &value)?,
            "flush" => attempt(&name, producer.flush(PATIENCE)),
            "begin" => attempt(&name, producer.begin_transaction()),
            "commit" => attempt(&name, producer.commit_transaction(PATIENCE)),
            "abort" => attempt(&name, producer.abort_transaction(PATIENCE)),
            "offsets" => attempt(&name, send_offsets(job, &producer, &value)),
            other => bail!("there is no command {other:?}"),
        }
    }
    producer.flush(PATIENCE)?;
    Ok(())
}

fn send(producer: &ThreadedProducer<Tell>, given: &Value) -> Result<()> {
    let id = usize::try_from(number(given, "id"))?;
    let mut record =
        BaseRecord::with_opaque_to(text(given, "topic"), id).payload(text(given, "value"));
    if let Some(key) = given["key"].as_str() {
        record = record.key(key);
    }
    if !given["partition"].is_null() {
        record = record.partition(partition(given)?);
    }
    if let Some(timestamp) = given["timestamp"].as_i64() {
        record = record.timestamp(timestamp);
    }
    if let Some(headers) = given["headers"].as_object() {
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header {
                key,
                value: value.as_str(),
            });
        }
        record = record.headers(owned);
    }
    if let Err((error, _)) = producer.send(record) {
        say(&json!({"refused": id, "error": error.to_string()}));
    }
    Ok(())
}

fn send_offsets(
    job: &Value,
    producer: &ThreadedProducer<Tell>,
    given: &Value,
) -> Result<(), KafkaError> {
    let mut settings = settings(job);
    let consumer: BaseConsumer = settings.set("group.id", text(given, "group")).create()?;
    let group = consumer.group_metadata().ok_or(KafkaError::Canceled)?;
    let partition = partition(given).map_err(|_| KafkaError::Canceled)?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(
        text(given, "topic"),
        partition,
        Offset::Offset(number(given, "offset")),
    )?;
    producer.send_offsets_to_transaction(&offsets, &group, PATIENCE)
}

/// Says what the consumer holds, and starts at a time if it is told one.
struct Member {
    from: Option<i64>,
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(assigned) = rebalance else {
            return;
        };
        if let Some(from) = self.from {
            let mut times = (*assigned).clone();
            let moved = times
                .set_all_offsets(Offset::Offset(from))
                .and_then(|()| consumer.offsets_for_times(times, PATIENCE))
                .and_then(|offsets| consumer.assign(&offsets));
            if let Err(error) = moved {
                say(&json!({"failed": "from", "error": error.to_string()}));
            }
        }
        let held: Vec<i32> = assigned
            .elements()
            .iter()
            .map(|it| it.partition())
            .collect();
        say(&json!({"assigned": held}));
    }
}

fn member(job: &Value, topic: &str) -> Result<BaseConsumer<Member>> {
    let session = job["session_timeout_ms"].as_i64().unwrap_or(6_000);
    let mut settings = settings(job);
    settings
        .set("group.id", text(job, "group"))
        .set(
            "auto.offset.reset",
            job["reset"].as_str().unwrap_or("earliest"),
        )
        .set(
            "isolation.level",
            job["isolation"].as_str().unwrap_or("read_committed"),
        )
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", session.to_string())
        .set("heartbeat.interval.ms", "300")
        .set("fetch.wait.max.ms", "100");
    let context = Member {
        from: job["from"].as_i64(),
    };
    let consumer: BaseConsumer<Member> = settings.create_with_context(context)?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}

fn poll(consumer: &BaseConsumer<Member>) -> Option<BorrowedMessage<'_>> {
    match consumer.poll(POLL)? {
        Ok(message) => Some(message),
        Err(error) => {
            say(&json!({"failed": "consume", "error": error.to_string()}));
            None
        }
    }
}

fn consume(job: &Value) -> Result<()> {
    let ended = input_ended();
    let consumer = member(job, text(job, "topic"))?;
    while !ended.load(Ordering::Relaxed) {
        let Some(message) = poll(&consumer) else {
            continue;
        };
        say(&json!({"record": record(&message)?}));
        match consumer.commit_message(&message, CommitMode::Sync) {
            Ok(()) => {
                let (partition, offset) = (message.partition(), message.offset() + 1);
                say(&json!({"committed": partition, "offset": offset}));
            }
            // A rebalance came first: whoever holds the partition now reads the records again.
            Err(error) => say(&json!({"failed": "commit", "error": error.to_string()})),
        }
    }
    consumer.unsubscribe();
    drop(consumer);
    say(&json!({"closed": true}));
    Ok(())
}

fn record(message: &BorrowedMessage<'_>) -> Result<Value> {
    let mut headers = BTreeMap::new();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let value = header.value.map(std::str::from_utf8).transpose()?;
        headers.insert(header.key, value);
    }
    Ok(json!({
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": message.key().map(std::str::from_utf8).transpose()?,
        "value": message.payload().map(std::str::from_utf8).transpose()?,
        "headers": headers,
    }))
}

fn copy(job: &Value) -> Result<()> {
    let ended = input_ended();
    let consumer = member(job, text(job, "source"))?;
    let mut settings = settings(job);
    settings.set("transactional.id", text(job, "transactional_id"));
    let producer: BaseProducer = settings.create()?;
    producer.init_transactions(PATIENCE)?;
    while !ended.load(Ordering::Relaxed) {
        let Some(message) = poll(&consumer) else {
            continue;
        };
        producer.begin_transaction()?;
        let record = BaseRecord::to(text(job, "target"))
            .payload(message.payload().unwrap_or_default())
            .key(message.key().unwrap_or_default());
        producer.send(record).map_err(|(error, _)| error)?;
        let group = consumer.group_metadata().context("not in a group")?;
        producer.send_offsets_to_transaction(&consumer.position()?, &group, PATIENCE)?;
        producer.commit_transaction(PATIENCE)?;
        say(&json!({"copied": 1}));
    }
    drop(consumer);
    say(&json!({"closed": true}));
    Ok(())
}

fn administrate(job: &Value) -> Result<()> {
    let client: AdminClient<DefaultClientContext> = settings(job).create()?;
    let reader: BaseConsumer = settings(job).set("group.id", "unused").create()?;
    let runtime = tokio::runtime::Runtime::new()?;
    for command in commands() {
        let (name, value) = command?;
        say(
            &match runtime.block_on(answer(&client, &reader, &name, &value)) {
                Ok(Some(answer)) => json!({"answer": answer}),
                Ok(None) => json!({"unsupported": name}),
                Err(error) => json!({"error": format!("{error:#}")}),
            },
        );
    }
    Ok(())
}

/// `None` for what the crate does not offer.
async fn answer(
    client: &AdminClient<DefaultClientContext>,
    reader: &BaseConsumer,
    command: &str,
    given: &Value,
) -> Result<Option<Value>> {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let topic = text(given, "topic");
    let answer = match command {
        "create_topic" => {
            let partitions = i32::try_from(number(given, "partitions"))?;
            let mut new =
                NewTopic::new(text(given, "name"), partitions, TopicReplication::Fixed(1));
            for (name, value) in given["configs"].as_object().into_iter().flatten() {
                new = new.set(name, value.as_str().unwrap_or_default());
            }
            succeeded(client.create_topics([&new], &options).await?)?
        }
        "topics" => {
            let metadata = reader.fetch_metadata(None, PATIENCE)?;
            metadata.topics().iter().map(|it| it.name()).collect()
        }
        "partitions" => {
            let metadata = reader.fetch_metadata(Some(topic), PATIENCE)?;
            let found = metadata.topics().first().context("no such topic")?;
            json!(found.partitions().len())
        }
        "grow" => {
            let count = usize::try_from(number(given, "count"))?;
            let new = NewPartitions::new(topic, count);
            succeeded(client.create_partitions([&new], &options).await?)?
        }
        "configs" => {
            let resource = ResourceSpecifier::Topic(topic);
            let mut found = client.describe_configs([&resource], &options).await?;
            let found = found.pop().context("no answer")??;
            let entries = found
                .entries
                .into_iter()
                .map(|it| (it.name, json!(it.value)));
            Value::Object(entries.collect())
        }
        "set_config" => {
            let change = AlterConfig::new(ResourceSpecifier::Topic(topic))
                .set(text(given, "name"), text(given, "value"));
            for result in client.alter_configs([&change], &options).await? {
                result.map_err(|(_, code)| code)?;
            }
            json!(true)
        }
        "trim" => {
            let mut before = TopicPartitionList::new();
            let offset = Offset::Offset(number(given, "before"));
            before.add_partition_offset(topic, partition(given)?, offset)?;
            let trimmed = client.delete_records(&before, &options).await?;
            let trimmed = trimmed.elements();
            json!(trimmed.first().context("no answer")?.offset().to_raw())
        }
        "offset" => {
            let partition = partition(given)?;
            let (low, high) = reader.fetch_watermarks(topic, partition, PATIENCE)?;
            match (&given["at"], given["at"].as_i64()) {
                (_, Some(time)) => {
                    let mut times = TopicPartitionList::new();
                    times.add_partition_offset(topic, partition, Offset::Offset(time))?;
                    let found = reader.offsets_for_times(times, PATIENCE)?;
                    json!(found.elements()[0].offset().to_raw())
                }
                (at, _) => json!(if at == "earliest" { low } else { high }),
            }
        }
        "groups" => {
            let groups = reader.fetch_group_list(None, PATIENCE)?;
            groups.groups().iter().map(|it| it.name()).collect()
        }
        "group" => {
            let groups = reader.fetch_group_list(Some(text(given, "id")), PATIENCE)?;
            let found = groups.groups().first().context("no such group")?;
            let state = found.state().to_uppercase();
            json!({"state": state, "members": found.members().len()})
        }
        // An offset of a group is read and set by a consumer of that group alone.
        "group_offset" | "set_group_offset" => return Ok(None),
        "delete_group" => succeeded(client.delete_groups(&[text(given, "id")], &options).await?)?,
        "delete_topic" => succeeded(
            client
                .delete_topics(&[text(given, "name")], &options)
                .await?,
        )?,
        "nodes" => json!(reader.fetch_metadata(None, PATIENCE)?.brokers().len()),
        other => bail!("there is no command {other:?}"),
    };
    Ok(Some(answer))
}

fn succeeded<T>(results: Vec<Result<T, (T, rdkafka::types::RDKafkaErrorCode)>>) -> Result<Value> {
    for result in results {
        result.map_err(|(_, code)| code)?;
    }
    Ok(json!(true))
}
