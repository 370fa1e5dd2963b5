//! Where a client connects, and as whom.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where a client connects, and as whom.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Host and port, as `127.0.0.1:9092`.
    pub address: String,
    /// Encrypts the connection. Default `None`: it is not.
    pub tls: Option<ClientTls>,
    /// Who to log in as. Default `None`: nobody.
    pub login: Option<ClientLogin>,
    /// How long one answer may take. Default 30 s.
    pub timeout: Duration,
}

/// How the broker's certificate is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// File with the authorities that are trusted, in PEM. `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// Who to log in as, by SCRAM-SHA-512. `Debug` does not print the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientLogin {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl ClientOptions {
    /// An address, and the defaults.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            tls: None,
            login: None,
            timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for ClientLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientLogin({:?}, ***)", self.user)
    }
}
