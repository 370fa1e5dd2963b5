import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Drives Apache's own Java clients. What it does, in which words: README.md. */
public final class Driver {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final BufferedReader INPUT =
            new BufferedReader(new InputStreamReader(System.in));
    private static final Duration POLL = Duration.ofMillis(100);
    /** Whether the input ended; a thread waits for that while records flow. */
    private static volatile boolean inputEnded;

    public static void main(String[] arguments) throws Exception {
        JsonNode job = JSON.readTree(arguments[0]);
        switch (job.get("job").asText()) {
            case "produce" -> new Produce(job).run();
            case "consume" -> consume(job);
            case "copy" -> copy(job);
            case "admin" -> new Administer(job).run();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static synchronized void say(Object... event) {
        Map<String, Object> fields = new LinkedHashMap<>();
        for (int at = 0; at < event.length; at += 2) {
            fields.put((String) event[at], event[at + 1]);
        }
        try {
            System.out.println(JSON.writeValueAsString(fields));
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    private static Properties settings(JsonNode job) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", job.get("bootstrap").asText());
        return settings;
    }

    private static final class Produce {
        private final KafkaProducer<String, String> producer;

        Produce(JsonNode job) {
            Properties settings = settings(job);
            boolean transactional = job.has("transactional_id");
            settings.put("compression.type", job.path("codec").asText("none"));
            settings.put("enable.idempotence", job.path("idempotent").asBoolean(transactional));
            settings.put("linger.ms", 20);
            settings.put("max.request.size", 2_000_000);
            if (transactional) {
                settings.put("transactional.id", job.get("transactional_id").asText());
            }
            producer =
                    new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
            if (transactional) {
                attempt("init", producer::initTransactions);
            }
        }

        void attempt(String what, Runnable call) {
            try {
                call.run();
                say("done", what);
            } catch (KafkaException error) {
                say("failed", what, "error", error.toString());
            }
        }

        void send(JsonNode record) {
            int id = record.get("id").asInt();
            Integer partition = record.has("partition") ? record.get("partition").asInt() : null;
            Long timestamp = record.has("timestamp") ? record.get("timestamp").asLong() : null;
            String key = record.get("key").isNull() ? null : record.get("key").asText();
            ProducerRecord<String, String> sent =
                    new ProducerRecord<>(
                            record.get("topic").asText(),
                            partition,
                            timestamp,
                            key,
                            record.get("value").asText());
            record.path("headers")
                    .fields()
                    .forEachRemaining(
                            header ->
                                    sent.headers()
                                            .add(
                                                    header.getKey(),
                                                    header.getValue().asText().getBytes()));
            try {
                producer.send(
                        sent,
                        (at, error) -> {
                            if (error != null) {
                                say("refused", id, "error", error.toString());
                            } else {
                                say("acked", id, "partition", at.partition(), "offset", at.offset());
                            }
                        });
            } catch (KafkaException error) {
                say("refused", id, "error", error.toString());
            }
        }

        void offsets(JsonNode at) {
            TopicPartition partition =
                    new TopicPartition(at.get("topic").asText(), at.get("partition").asInt());
            producer.sendOffsetsToTransaction(
                    Map.of(partition, new OffsetAndMetadata(at.get("offset").asLong())),
                    new ConsumerGroupMetadata(at.get("group").asText()));
        }

        void run() throws Exception {
            for (String line = INPUT.readLine(); line != null; line = INPUT.readLine()) {
                Map.Entry<String, JsonNode> command = JSON.readTree(line).fields().next();
                JsonNode value = command.getValue();
                switch (command.getKey()) {
                    case "send" -> send(value);
                    case "flush" -> attempt("flush", producer::flush);
                    case "begin" -> attempt("begin", producer::beginTransaction);
                    case "commit" -> attempt("commit", producer::commitTransaction);
                    case "abort" -> attempt("abort", producer::abortTransaction);
                    case "offsets" -> attempt("offsets", () -> offsets(value));
                    default -> throw new IllegalArgumentException(line);
                }
            }
            producer.close();
        }
    }

    private static KafkaConsumer<String, String> member(JsonNode job, String isolation) {
        Properties settings = settings(job);
        settings.put("group.id", job.get("group").asText());
        settings.put("auto.offset.reset", job.path("reset").asText("earliest"));
        settings.put("isolation.level", isolation);
        settings.put("enable.auto.commit", false);
        settings.put("session.timeout.ms", job.path("session_timeout_ms").asInt(6000));
        settings.put("heartbeat.interval.ms", 300);
        settings.put("fetch.max.wait.ms", 100);
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    /** Says what the consumer holds, and starts at a time if it is told one. */
    private record Tell(KafkaConsumer<String, String> consumer, JsonNode job)
            implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            if (job.has("from")) {
                Map<TopicPartition, Long> times = new HashMap<>();
                partitions.forEach(partition -> times.put(partition, job.get("from").asLong()));
                Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
                consumer.offsetsForTimes(times)
                        .forEach(
                                (partition, found) ->
                                        consumer.seek(
                                                partition,
                                                found == null
                                                        ? ends.get(partition)
                                                        : found.offset()));
            }
            say(
                    "assigned",
                    consumer.assignment().stream().map(TopicPartition::partition).toList());
        }
    }

    private static void watchInput() {
        Thread watcher =
                new Thread(
                        () -> {
                            try {
                                while (INPUT.read() >= 0) {}
                            } catch (Exception error) {
                                say("failed", "input", "error", error.toString());
                            }
                            inputEnded = true;
                        });
        watcher.setDaemon(true);
        watcher.start();
    }

    private static void consume(JsonNode job) {
        watchInput();
        KafkaConsumer<String, String> consumer =
                member(job, job.path("isolation").asText("read_committed"));
        consumer.subscribe(List.of(job.get("topic").asText()), new Tell(consumer, job));
        while (!inputEnded) {
            ConsumerRecords<String, String> records = consumer.poll(POLL);
            for (ConsumerRecord<String, String> record : records) {
                Map<String, Object> told = new LinkedHashMap<>();
                told.put("partition", record.partition());
                told.put("offset", record.offset());
                told.put("timestamp", record.timestamp());
                told.put("key", record.key());
                told.put("value", record.value());
                Map<String, String> headers = new LinkedHashMap<>();
                record.headers()
                        .forEach(header -> headers.put(header.key(), new String(header.value())));
                told.put("headers", headers);
                say("record", told);
            }
            if (!records.isEmpty()) {
                commit(consumer, records);
            }
        }
        consumer.close();
        say("closed", true);
    }

    private static void commit(
            KafkaConsumer<String, String> consumer, ConsumerRecords<String, String> records) {
        Map<TopicPartition, OffsetAndMetadata> offsets = records.nextOffsets();
        try {
            consumer.commitSync(offsets);
        } catch (KafkaException error) {
            // A rebalance came first: whoever holds the partition now reads the records again.
            say("failed", "commit", "error", error.toString());
            return;
        }
        offsets.forEach(
                (partition, position) ->
                        say("committed", partition.partition(), "offset", position.offset()));
    }

    private static void copy(JsonNode job) {
        watchInput();
        KafkaConsumer<String, String> consumer = member(job, "read_committed");
        consumer.subscribe(List.of(job.get("source").asText()), new Tell(consumer, job));
        Properties settings = settings(job);
        settings.put("transactional.id", job.get("transactional_id").asText());
        KafkaProducer<String, String> producer =
                new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        while (!inputEnded) {
            ConsumerRecords<String, String> records = consumer.poll(POLL);
            if (records.isEmpty()) {
                continue;
            }
            producer.beginTransaction();
            for (ConsumerRecord<String, String> record : records) {
                producer.send(
                        new ProducerRecord<>(
                                job.get("target").asText(), record.key(), record.value()));
            }
            producer.sendOffsetsToTransaction(records.nextOffsets(), consumer.groupMetadata());
            producer.commitTransaction();
            say("copied", records.count());
        }
        consumer.close();
        producer.close();
        say("closed", true);
    }

    private static final class Administer {
        private final Admin client;

        Administer(JsonNode job) {
            client = Admin.create(settings(job));
        }

        private static <T> T get(KafkaFuture<T> future) throws Exception {
            return future.get(30, TimeUnit.SECONDS);
        }

        private static ConfigResource topicResource(JsonNode given) {
            return new ConfigResource(ConfigResource.Type.TOPIC, given.get("topic").asText());
        }

        private static TopicPartition position(JsonNode given) {
            return new TopicPartition(
                    given.get("topic").asText(), given.path("partition").asInt());
        }

        private Object answer(String command, JsonNode given) throws Exception {
            switch (command) {
                case "create_topic" -> {
                    Map<String, String> configs = new HashMap<>();
                    given.get("configs")
                            .fields()
                            .forEachRemaining(
                                    entry ->
                                            configs.put(entry.getKey(), entry.getValue().asText()));
                    NewTopic topic =
                            new NewTopic(
                                    given.get("name").asText(),
                                    given.get("partitions").asInt(),
                                    (short) 1);
                    get(client.createTopics(List.of(topic.configs(configs))).all());
                }
                case "topics" -> {
                    return get(client.listTopics().names());
                }
                case "partitions" -> {
                    String topic = given.get("topic").asText();
                    return get(client.describeTopics(List.of(topic)).allTopicNames())
                            .get(topic)
                            .partitions()
                            .size();
                }
                case "grow" -> get(
                        client.createPartitions(
                                        Map.of(
                                                given.get("topic").asText(),
                                                NewPartitions.increaseTo(
                                                        given.get("count").asInt())))
                                .all());
                case "configs" -> {
                    ConfigResource resource = topicResource(given);
                    Map<String, String> found = new LinkedHashMap<>();
                    get(client.describeConfigs(List.of(resource)).all())
                            .get(resource)
                            .entries()
                            .forEach(entry -> found.put(entry.name(), entry.value()));
                    return found;
                }
                case "set_config" -> {
                    ConfigEntry entry =
                            new ConfigEntry(
                                    given.get("name").asText(), given.get("value").asText());
                    AlterConfigOp set = new AlterConfigOp(entry, AlterConfigOp.OpType.SET);
                    get(
                            client.incrementalAlterConfigs(
                                            Map.of(topicResource(given), List.of(set)))
                                    .all());
                }
                case "trim" -> {
                    RecordsToDelete before =
                            RecordsToDelete.beforeOffset(given.get("before").asLong());
                    return get(client.deleteRecords(Map.of(position(given), before))
                                    .lowWatermarks()
                                    .get(position(given)))
                            .lowWatermark();
                }
                case "offset" -> {
                    OffsetSpec at =
                            switch (given.get("at").asText()) {
                                case "earliest" -> OffsetSpec.earliest();
                                case "latest" -> OffsetSpec.latest();
                                default -> OffsetSpec.forTimestamp(given.get("at").asLong());
                            };
                    return get(client.listOffsets(Map.of(position(given), at)).all())
                            .get(position(given))
                            .offset();
                }
                case "groups" -> {
                    List<String> found = new ArrayList<>();
                    get(client.listConsumerGroups().all())
                            .forEach(group -> found.add(group.groupId()));
                    return found;
                }
                case "group" -> {
                    String id = given.get("id").asText();
                    var found = get(client.describeConsumerGroups(List.of(id)).all()).get(id);
                    return Map.of(
                            "state",
                            found.groupState().name(),
                            "members",
                            found.members().size());
                }
                case "group_offset" -> {
                    String id = given.get("id").asText();
                    ListConsumerGroupOffsetsSpec wanted =
                            new ListConsumerGroupOffsetsSpec()
                                    .topicPartitions(List.of(position(given)));
                    OffsetAndMetadata found =
                            get(client.listConsumerGroupOffsets(Map.of(id, wanted)).all())
                                    .get(id)
                                    .get(position(given));
                    return found == null ? -1 : found.offset();
                }
                case "set_group_offset" -> get(
                        client.alterConsumerGroupOffsets(
                                        given.get("id").asText(),
                                        Map.of(
                                                position(given),
                                                new OffsetAndMetadata(
                                                        given.get("offset").asLong())))
                                .all());
                case "delete_group" -> get(
                        client.deleteConsumerGroups(List.of(given.get("id").asText())).all());
                case "delete_topic" -> get(
                        client.deleteTopics(List.of(given.get("name").asText())).all());
                case "nodes" -> {
                    return get(client.describeCluster().nodes()).size();
                }
                default -> throw new IllegalArgumentException(command);
            }
            return true;
        }

        void run() throws Exception {
            for (String line = INPUT.readLine(); line != null; line = INPUT.readLine()) {
                Map.Entry<String, JsonNode> command = JSON.readTree(line).fields().next();
                try {
                    say("answer", answer(command.getKey(), command.getValue()));
                } catch (ExecutionException error) {
                    say("error", error.getCause().toString());
                }
            }
            client.close();
        }
    }
}
