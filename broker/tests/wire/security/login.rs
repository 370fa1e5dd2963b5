//! Logging in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, BytesMut};
use outbox_broker::{Broker, Rule, SecurityError, StartError, UserSecret};
use proto_kafka::messages::{ApiVersionsRequest, MetadataRequest, SaslHandshakeRequest};
use proto_kafka::protocol::StrBytes;

use super::rig::*;
use crate::rig::{Client, batch, framed, options};

const WRONG: i16 = 58;

async fn is_served(client: &mut Client) {
    let answer = client.call(9, &MetadataRequest::default()).await;
    assert_eq!(answer.brokers.len(), 1);
}

#[tokio::test]
async fn a_user_logs_in_by_every_mechanism() {
    let rig = guarded(|_| {}).await;
    is_served(&mut logged_in(&rig, "shop").await).await;
    for scram in scrams() {
        let mut client = rig.connect().await;
        assert_eq!(scram.log_in(&mut client, "mail", PASSWORD).await, 0);
        is_served(&mut client).await;
    }
}

#[tokio::test]
async fn whoever_has_not_logged_in_is_closed_but_may_ask_for_versions() {
    let rig = guarded(|_| {}).await;
    let mut client = rig.connect().await;
    let versions = client.call(3, &ApiVersionsRequest::default()).await;
    let keys: Vec<i16> = versions.api_keys.iter().map(|k| k.api_key).collect();
    assert!(keys.contains(&17) && keys.contains(&36));
    client.send(9, &MetadataRequest::default()).await;
    client.expect_closed().await;
    let mut client = rig.connect().await;
    let produce = crate::rig::produce_request(-1, &[(0, batch(&["x"]))]);
    client.send(9, &produce).await;
    client.expect_closed().await;
    assert_eq!(rig.broker.log().topics(), []);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_the_connection_closed() {
    let rig = guarded(|_| {}).await;
    for (user, password) in [("shop", "guess"), ("nobody", PASSWORD), ("shop", "")] {
        let mut client = rig.connect().await;
        assert_eq!(plain(&mut client, user, password).await, WRONG);
        client.expect_closed().await;
        for scram in scrams() {
            let mut client = rig.connect().await;
            assert_eq!(scram.log_in(&mut client, user, password).await, WRONG);
            client.expect_closed().await;
        }
    }
    is_served(&mut logged_in(&rig, "shop").await).await;
}

#[tokio::test]
async fn a_mechanism_that_is_not_offered_is_refused_with_those_that_are() {
    let rig = guarded(|_| {}).await;
    let mut client = rig.connect().await;
    let refused = handshake(&mut client, "GSSAPI").await;
    let names: Vec<&str> = refused.mechanisms.iter().map(|m| &**m).collect();
    assert_eq!(
        (refused.error_code, &names[..]),
        (33, &["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"][..])
    );
    let old = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
    assert_eq!(client.call(0, &old).await.error_code, 35);
    // Neither spoils the connection.
    assert_eq!(plain(&mut client, "shop", PASSWORD).await, 0);
    assert_eq!(
        handshake(&mut client, "PLAIN").await.error_code,
        34,
        "once is enough"
    );
    is_served(&mut client).await;
}

#[tokio::test]
async fn where_nobody_needs_to_log_in_nobody_can() {
    let rig = crate::rig::Rig::start().await;
    let refused = handshake(&mut rig.connect().await, "PLAIN").await;
    assert_eq!((refused.error_code, refused.mechanisms.len()), (33, 0));
}

#[tokio::test]
async fn a_hash_that_was_made_elsewhere_serves_as_a_password() {
    let rig = guarded(|options| {
        options.security.users[0].secret = UserSecret::Verifier(
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
                .to_owned(),
        );
    })
    .await;
    let [sha256, sha512] = scrams();
    assert_eq!(
        sha256
            .log_in(&mut rig.connect().await, "shop", "pencil")
            .await,
        0
    );
    assert_eq!(
        sha512
            .log_in(&mut rig.connect().await, "shop", "pencil")
            .await,
        WRONG
    );
    assert_eq!(plain(&mut rig.connect().await, "shop", "pencil").await, 0);
}

#[tokio::test]
async fn somebody_who_is_nobody_yet_gets_little_memory() {
    let rig = guarded(|_| {}).await;
    let mut request = BytesMut::new();
    request.put_i16(0);
    request.put_i16(9);
    request.put_bytes(0, 20_000);
    let mut client = rig.connect().await;
    client.send_raw(&framed(&request)).await;
    client.expect_closed().await;
    let mut client = logged_in(&rig, "shop").await;
    rig.create_topic(crate::rig::TOPIC, 1).await;
    let large = "x".repeat(100_000);
    assert_eq!(client.produce(0, batch(&[&large])).await.error_code, 0);
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_password_is_ever_logged() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // For the whole program: what other tests log meanwhile is looked at, too.
    tracing::subscriber::set_global_default(subscriber).expect("the only one");
    let rig = guarded(|_| {}).await;
    logged_in(&rig, "shop").await;
    plain(&mut rig.connect().await, "shop", "hunter2").await;
    plain(&mut rig.connect().await, "hunter2", "shop").await;
    let mut client = rig.connect().await;
    handshake(&mut client, "PLAIN").await;
    authenticate(&mut client, b"hunter2").await;
    let text = String::from_utf8(logged.0.lock().expect("a log").clone()).expect("text");
    assert!(
        text.contains("a log-in failed"),
        "something is logged: {text}"
    );
    assert!(
        !text.contains("hunter2") && !text.contains(PASSWORD),
        "{text}"
    );
    let shown = format!("{:?}", user("shop"));
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[tokio::test]
async fn an_address_that_others_reach_may_be_listened_at_when_clients_must_log_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = options(&dir);
    options.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    options.advertised = Some("localhost:0".parse().expect("an address"));
    options.security.users = vec![user("shop")];
    let broker = Broker::start(options).await.expect("a broker");
    let addr = SocketAddr::from(([127, 0, 0, 1], broker.local_addr().port()));
    let mut client = Client::connect(addr).await;
    assert_eq!(plain(&mut client, "shop", PASSWORD).await, 0);
}

#[tokio::test]
async fn users_and_rules_that_make_no_sense_are_refused_before_anything_listens() {
    let about = |user: &str| Rule {
        users: vec![user.to_owned()],
        ..Rule::default()
    };
    let cases = [
        (vec![user("a"), user("a")], vec![], "two of this name"),
        (vec![user("")], vec![], "no name"),
        (vec![user("a")], vec![about("b")], "not there"),
        (vec![], vec![about("*")], "nobody could prove"),
    ];
    for (users, rules, words) in cases {
        let dir = tempfile::tempdir().expect("a folder");
        let mut options = options(&dir);
        (options.security.users, options.security.rules) = (users, rules);
        let refused = Broker::start(options).await.expect_err("refused");
        assert!(refused.to_string().contains(words), "{refused}");
        let security = matches!(refused, StartError::Security(_));
        assert!(security);
    }
    let empty = SecurityError::Password {
        user: "a".to_owned(),
    };
    assert!(empty.to_string().contains("empty"));
}
