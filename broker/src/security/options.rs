//! How a broker finds out who a client is, and what it may do.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Who may connect, how, and what for. The default asks nobody anything.
#[derive(Clone, Debug, Default)]
pub struct SecurityOptions {
    /// Who may log in, by SASL: SCRAM-SHA-256, SCRAM-SHA-512 or PLAIN. Empty: nobody needs to.
    pub users: Vec<User>,
    /// What each of them may do. Empty: everything.
    pub rules: Vec<Rule>,
    /// The certificate of the broker. `None`: connections are not encrypted.
    pub tls: Option<TlsOptions>,
}

/// Somebody who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name; not empty.
    pub name: String,
    /// What proves it.
    pub secret: UserSecret,
}

/// What proves that somebody is who it says. `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub enum UserSecret {
    /// The password. It is hashed with a salt at the start, and not kept.
    Password(String),
    /// A hash of it that was made elsewhere, as PostgreSQL writes it:
    /// `SCRAM-SHA-256$4096:SALT$STOREDKEY:SERVERKEY`. SCRAM works with its own mechanism only.
    Verifier(String),
}

/// The broker's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// File with the certificate and those between it and its authority, in PEM.
    pub certificate: PathBuf,
    /// File with the private key, in PEM.
    pub key: PathBuf,
    /// File with the authorities of clients' certificates, in PEM: then every client must have
    /// one. `None`: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
}

/// Some users may do some things with some resources. What no rule allows is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Their names; `*` stands for everybody who has logged in.
    pub users: Vec<String>,
    /// What they may do.
    pub allow: Vec<Operation>,
    /// With which topics.
    pub topics: Vec<Pattern>,
    /// With which consumer groups.
    pub groups: Vec<Pattern>,
    /// With which transactional ids.
    pub transactional_ids: Vec<Pattern>,
    /// With the broker itself.
    pub cluster: bool,
}

/// What may be done. Who may read, write, delete or alter something may describe it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Read records; take part in a group and commit its offsets.
    Read,
    /// Write records; use a transactional id.
    Write,
    /// Create topics.
    Create,
    /// Delete topics, records and groups.
    Delete,
    /// Change topics and their number of partitions.
    Alter,
    /// See that it is there, and how it stands.
    Describe,
    /// See how it is configured.
    DescribeConfigs,
    /// Change how it is configured.
    AlterConfigs,
    /// All of these.
    All,
}

/// A name, or the beginning of one: `orders` or `orders.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This name.
    Exact(String),
    /// All names that begin like this.
    Prefix(String),
}

/// Why the security of a broker cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// A name is empty or there twice.
    #[error("the user {user:?} has no name, or there are two of this name")]
    Name {
        /// The name.
        user: String,
    },
    /// A password is empty.
    #[error("the password of the user {user:?} is empty")]
    Password {
        /// The user.
        user: String,
    },
    /// A hash cannot be read.
    #[error("the verifier of the user {user:?} {reason}")]
    Verifier {
        /// The user.
        user: String,
        /// Why not.
        reason: &'static str,
    },
    /// A rule is about somebody who cannot log in.
    #[error(
        "a rule is about the user {user:?}, who is not there. Cure: add the user, or mend the name"
    )]
    Unknown {
        /// The name.
        user: String,
    },
    /// There are rules, but nobody is asked who they are.
    #[error("there are rules but neither users nor a client_ca: nobody could prove to be anybody")]
    RulesForNobody,
    /// A file of certificates or keys is of no use.
    #[error("the file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Certificate and key do not fit.
    #[error("the certificate cannot be used: {0}")]
    Tls(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl SecurityOptions {
    /// Whether clients must prove who they are.
    pub fn authenticates(&self) -> bool {
        let certified = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        !self.users.is_empty() || certified
    }

    pub(crate) fn check(&self) -> Result<(), SecurityError> {
        if !self.rules.is_empty() && !self.authenticates() {
            return Err(SecurityError::RulesForNobody);
        }
        let known = |name: &str| name == "*" || self.users.iter().any(|u| u.name == name);
        let mut named = self.rules.iter().flat_map(|rule| &rule.users);
        match named.find(|name| !known(name)) {
            Some(user) => Err(SecurityError::Unknown { user: user.clone() }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for UserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(***)",
            Self::Verifier(_) => "Verifier(***)",
        })
    }
}

impl Pattern {
    /// Whether a name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }
}

impl Operation {
    /// Each with the name that a configuration calls it by.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("read", Self::Read),
        ("write", Self::Write),
        ("create", Self::Create),
        ("delete", Self::Delete),
        ("alter", Self::Alter),
        ("describe", Self::Describe),
        ("describe_configs", Self::DescribeConfigs),
        ("alter_configs", Self::AlterConfigs),
        ("all", Self::All),
    ];

    /// Whether who may do this may do `other`.
    pub(crate) fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Read | Self::Write | Self::Delete | Self::Alter, Self::Describe) => true,
            (Self::AlterConfigs, Self::DescribeConfigs) => true,
            (own, other) => own == other,
        }
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, operation)| *operation).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("{text:?} is not one of {}", names.join(", "))
        })
    }
}
