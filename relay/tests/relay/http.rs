//! Health and metrics over HTTP.

use std::net::{SocketAddr, TcpListener};

use outbox_relay::{HttpError, HttpOptions, RelayError, RelayOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Bed, ScriptedBroker};

/// A port that was free a moment ago.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound")
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let bed = Bed::new(ScriptedBroker::plain());
    let addr = free_port();
    let options = RelayOptions {
        http: Some(HttpOptions {
            addr,
            allow_remote: false,
        }),
        ..bed.options("a")
    };
    let relay = bed.start_with(options);
    bed.enqueue("k");
    bed.done().await;
    assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200"));
    let ready = get(addr, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains(r#""d":{"state":"running"}"#), "{ready}");
    let metrics = get(addr, "/metrics").await;
    assert!(
        metrics.contains(r#"outbox_relay_sent_total{destination="d"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains("# HELP outbox_relay_cursor"), "{metrics}");
    relay.stop().await;
}

#[tokio::test]
async fn an_address_that_is_reachable_from_outside_is_refused() {
    let bed = Bed::new(ScriptedBroker::plain());
    let options = RelayOptions {
        http: Some(HttpOptions {
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            allow_remote: false,
        }),
        ..bed.options("a")
    };
    let relay = bed.start_with(options);
    let error = relay.task.await.expect("no panic").expect_err("refused");
    let RelayError::Http(HttpError::NotLoopback { addr }) = error else {
        panic!("{error}");
    };
    assert_eq!(addr, SocketAddr::from(([0, 0, 0, 0], 0)));
}
