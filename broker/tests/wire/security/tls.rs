//! Encrypted connections.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outbox_broker::{Broker, StartError, TlsOptions};
use proto_kafka::messages::{ApiVersionsRequest, MetadataRequest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::rig::*;
use crate::rig::{Client, Rig, TOPIC, batch, options, values};

/// An authority, and what it has signed for the broker and for a client.
struct Papers {
    dir: tempfile::TempDir,
}

impl Papers {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let papers = Self {
            dir: tempfile::tempdir().expect("a folder"),
        };
        papers.write("ca.pem", &authority.pem());
        for name in ["broker", "client"] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
            let certificate = params.signed_by(&key, &authority).expect("signed");
            papers.write(&format!("{name}.pem"), &certificate.pem());
            papers.write(&format!("{name}.key"), &key.serialize_pem());
        }
        papers
    }

    fn write(&self, name: &str, pem: &str) {
        std::fs::write(self.path(name), pem).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self, client_ca: bool) -> TlsOptions {
        TlsOptions {
            certificate: self.path("broker.pem"),
            key: self.path("broker.key"),
            client_ca: client_ca.then(|| self.path("ca.pem")),
        }
    }

    fn connector(&self, certified: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.path("ca.pem")).expect("a certificate");
        roots.add(authority).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match certified {
            false => config.with_no_client_auth(),
            true => {
                let own = CertificateDer::from_pem_file(self.path("client.pem")).expect("own");
                let key = PrivateKeyDer::from_pem_file(self.path("client.key")).expect("a key");
                config
                    .with_client_auth_cert(vec![own], key)
                    .expect("a pair")
            }
        };
        TlsConnector::from(Arc::new(config))
    }

    /// A place that takes plain connections and leads them, encrypted, to the broker.
    async fn tunnel(&self, broker: SocketAddr, certified: bool) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a tunnel");
        let addr = listener.local_addr().expect("an address");
        let connector = self.connector(certified);
        tokio::spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let stream = TcpStream::connect(broker).await.expect("a connection");
                    let name = ServerName::try_from("localhost").expect("a name");
                    let mut encrypted = connector.connect(name, stream).await?;
                    copy_bidirectional(&mut plain, &mut encrypted).await
                });
            }
        });
        addr
    }
}

#[tokio::test]
async fn an_encrypted_connection_carries_everything() {
    let papers = Papers::new();
    let rig = guarded(|options| options.security.tls = Some(papers.options(false))).await;
    rig.create_topic(TOPIC, 1).await;
    let tunnel = papers.tunnel(rig.broker.local_addr(), false).await;
    let mut client = Client::connect(tunnel).await;
    assert_eq!(plain(&mut client, "shop", PASSWORD).await, 0);
    let large = "x".repeat(900_000);
    for _ in 0..3 {
        assert_eq!(client.produce(0, batch(&[&large, "y"])).await.error_code, 0);
    }
    let read = values(&client.fetch(0, 2).await);
    assert_eq!(read[0], (2, large));
    assert_eq!(read[1], (3, "y".to_owned()));
}

#[tokio::test]
async fn a_client_that_does_not_encrypt_is_closed_and_nobody_else_notices() {
    let papers = Papers::new();
    let tls = papers.options(false);
    let rig = Rig::start_with(|options| options.security.tls = Some(tls)).await;
    let mut rude = rig.connect().await;
    rude.send(9, &MetadataRequest::default()).await;
    let mut rest = Vec::new();
    use tokio::io::AsyncReadExt;
    let _ = rude.stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 16, "an alert of TLS at most: {rest:?}");
    let tunnel = papers.tunnel(rig.broker.local_addr(), false).await;
    let mut client = Client::connect(tunnel).await;
    client.call(3, &ApiVersionsRequest::default()).await;
}

#[tokio::test]
async fn where_clients_need_a_certificate_nobody_without_one_gets_in() {
    let papers = Papers::new();
    let tls = papers.options(true);
    let rig = Rig::start_with(|options| options.security.tls = Some(tls)).await;
    let addr = rig.broker.local_addr();
    let mut stranger = Client::connect(papers.tunnel(addr, false).await).await;
    stranger.send(3, &ApiVersionsRequest::default()).await;
    stranger.expect_closed().await;
    let mut client = Client::connect(papers.tunnel(addr, true).await).await;
    let answer = client.call(9, &MetadataRequest::default()).await;
    assert_eq!(answer.brokers.len(), 1);
}

#[tokio::test]
async fn files_that_are_of_no_use_are_named_without_a_word_of_what_is_in_them() {
    let papers = Papers::new();
    papers.write("odd.pem", "hunter2");
    let refuse = async |tls: TlsOptions, path: &Path| {
        let dir = tempfile::tempdir().expect("a folder");
        let mut options = options(&dir);
        options.security.tls = Some(tls);
        let refused = Broker::start(options).await.expect_err("refused");
        assert!(matches!(refused, StartError::Security(_)));
        let text = refused.to_string();
        assert!(text.contains(&*path.to_string_lossy()), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    };
    let good = papers.options(true);
    for name in ["odd.pem", "missing.pem"] {
        let path = papers.path(name);
        let certificate = TlsOptions {
            certificate: path.clone(),
            ..good.clone()
        };
        refuse(certificate, &path).await;
        refuse(
            TlsOptions {
                key: path.clone(),
                ..good.clone()
            },
            &path,
        )
        .await;
        let client_ca = TlsOptions {
            client_ca: Some(path.clone()),
            ..good.clone()
        };
        refuse(client_ca, &path).await;
    }
}
