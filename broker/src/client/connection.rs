//! Requests and answers, one at a time.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::ClientError;
use super::login;
use super::options::{ClientOptions, ClientTls};
use crate::codec::messages::{ApiVersionsRequest, RequestHeader};
use crate::codec::{Decodable, Encodable, EncodeResult, HeaderVersion, Request, StrBytes};
use crate::limits::CLIENT_ANSWER_BYTES_MAX;

/// What this client calls itself.
const CLIENT_ID: &str = "outbox";

/// A stream to a broker, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection to a broker.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    pub address: String,
    timeout: Duration,
    /// Key → versions that the broker serves.
    versions: HashMap<i16, (i16, i16)>,
    next_id: i32,
}

impl Connection {
    pub async fn open(options: &ClientOptions) -> Result<Self, ClientError> {
        let address = options.address.clone();
        let unreachable = |source| ClientError::Unreachable {
            address: address.clone(),
            source,
        };
        let connected = async {
            let stream = TcpStream::connect(&options.address)
                .await
                .map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            match &options.tls {
                None => Ok(Box::new(stream) as Box<dyn Stream>),
                Some(tls) => encrypt(stream, &options.address, tls).await,
            }
        };
        let stream = in_time(&options.address, options.timeout, connected).await?;
        let mut connection = Self {
            stream,
            address: options.address.clone(),
            timeout: options.timeout,
            versions: HashMap::new(),
            next_id: 1,
        };
        connection.ask_versions().await?;
        if let Some(credentials) = &options.login {
            login::log_in(&mut connection, credentials).await?;
        }
        Ok(connection)
    }

    async fn ask_versions(&mut self) -> Result<(), ClientError> {
        let answer = self
            .exchange(0, &ApiVersionsRequest::default(), self.timeout)
            .await?;
        let keys = answer.api_keys.iter();
        self.versions = keys
            .map(|k| (k.api_key, (k.min_version, k.max_version)))
            .collect();
        Ok(())
    }

    /// Sends a request in this version, and waits for its answer. After an error the connection is
    /// of no more use.
    pub async fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        self.call_for(version, request, Duration::ZERO).await
    }

    /// The same for a request that the broker may hold back for `wait`.
    pub async fn call_for<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        wait: Duration,
    ) -> Result<R::Response, ClientError> {
        let served = self.versions.get(&R::KEY);
        if !served.is_some_and(|(min, max)| (*min..=*max).contains(&version)) {
            let key = R::KEY;
            return Err(self.confused(format!("it does not serve API {key} version {version}")));
        }
        self.exchange(version, request, self.timeout + wait).await
    }

    async fn exchange<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        time: Duration,
    ) -> Result<R::Response, ClientError> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let frame = frame(version, id, request);
        let frame = frame.map_err(|error| self.confused(error.to_string()))?;
        let address = self.address.clone();
        let talk = async {
            let received = talk(&mut self.stream, &frame).await;
            received.map_err(|source| ClientError::Unreachable {
                address: address.clone(),
                source,
            })
        };
        let mut answer = in_time(&address, time, talk).await?;
        let mut read = || -> Result<R::Response, String> {
            if answer.remaining() < 4 || answer.get_i32() != id {
                return Err("an answer is not that of the request".to_owned());
            }
            if R::Response::header_version(version) >= 1 {
                // Tagged fields of the head: none are known.
                if !answer.has_remaining() || answer.get_u8() != 0 {
                    return Err("an answer has a head that cannot be read".to_owned());
                }
            }
            R::Response::decode(&mut answer, version).map_err(|error| error.to_string())
        };
        read().map_err(|reason| self.confused(reason))
    }

    pub fn confused(&self, reason: String) -> ClientError {
        let address = self.address.clone();
        ClientError::Protocol { address, reason }
    }
}

fn frame<R: Request>(version: i16, id: i32, request: &R) -> EncodeResult<BytesMut> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(version))?;
    request.encode(&mut frame, version)?;
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

async fn talk(stream: &mut Box<dyn Stream>, frame: &[u8]) -> io::Result<Bytes> {
    stream.write_all(frame).await?;
    stream.flush().await?;
    let length = stream.read_i32().await?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > CLIENT_ANSWER_BYTES_MAX {
        let text = format!("an answer of {length} bytes, the limit is {CLIENT_ANSWER_BYTES_MAX}");
        return Err(io::Error::other(text));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer.into())
}

async fn in_time<T>(
    address: &str,
    time: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let address = address.to_owned();
    let done = timeout(time, work).await;
    done.unwrap_or(Err(ClientError::Silent { address, time }))
}

async fn encrypt(
    stream: TcpStream,
    address: &str,
    tls: &ClientTls,
) -> Result<Box<dyn Stream>, ClientError> {
    let failed = |reason: String| ClientError::Tls {
        address: address.to_owned(),
        reason,
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let name = ServerName::try_from(host).map_err(|error| failed(error.to_string()))?;
    // Named, for rustls has no default when two providers are in one program.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| failed(error.to_string()))?;
    let roots = roots(tls.ca.as_deref()).map_err(failed)?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await;
    Ok(Box::new(stream.map_err(|error| failed(error.to_string()))?))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
        let certificate = certificate.map_err(|e| wrong(&e))?;
        roots.add(certificate).map_err(|e| wrong(&e))?;
    }
    Ok(roots)
}
