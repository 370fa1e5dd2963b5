//! Encrypted connections.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::options::{SecurityError, TlsOptions};

/// Reads the files. They are read once: a new certificate needs a restart.
pub(crate) fn acceptor(options: &TlsOptions) -> Result<TlsAcceptor, SecurityError> {
    // Named, for rustls has no default when two providers are in one program.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&options.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&options.key);
    // What is wrong with a key file is said without a word of what is in it.
    let key = key.map_err(|error| unusable(&options.key, &error))?;
    let config = ServerConfig::builder_with_provider(provider.clone());
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| SecurityError::Tls(error.to_string()))?;
    let config = match &options.client_ca {
        None => config.with_no_client_auth(),
        Some(path) => config.with_client_cert_verifier(verifier(path, provider)?),
    };
    let config = config.with_single_cert(chain, key);
    let config = config.map_err(|error| SecurityError::Tls(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn verifier(
    path: &Path,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, SecurityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(path, &error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().map_err(|error| unusable(path, &error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, &error))?;
    let read: Result<Vec<_>, _> = read.collect();
    let certificates = read.map_err(|error| unusable(path, &error))?;
    match certificates.is_empty() {
        true => Err(unusable(path, &"it has no certificate in PEM")),
        false => Ok(certificates),
    }
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> SecurityError {
    SecurityError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
