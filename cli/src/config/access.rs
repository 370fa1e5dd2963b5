//! Who may connect to `outbox broker`, and what for: `[broker.tls]`, `[[broker.user]]` and
//! `[[broker.allow]]`.

use std::fmt;
use std::path::PathBuf;

use outbox_broker::{Operation, Pattern, Rule, SecurityOptions, TlsOptions, User, UserSecret};
use serde::{Deserialize, Deserializer};

use super::value::{Secret, SecretRef};

/// `[broker.tls]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Certificate and its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

/// One `[[broker.user]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSection {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Option<SecretRef>,
    /// Or a hash of it.
    pub verifier: Option<SecretRef>,
}

/// One `[[broker.allow]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowSection {
    /// Users; `*` for everybody who has logged in.
    pub users: Vec<String>,
    /// What they may do.
    pub operations: Vec<Allowed>,
    /// With these topics.
    #[serde(default)]
    pub topics: Vec<String>,
    /// With these consumer groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// With these transactional ids.
    #[serde(default)]
    pub transactional_ids: Vec<String>,
    /// With the broker itself.
    #[serde(default)]
    pub cluster: bool,
}

/// An operation that checks itself while it is read.
#[derive(Clone, Copy)]
pub struct Allowed(Operation);

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// What the three sections say together. `resolve` fetches a secret, for the setting it names.
///
/// # Errors
/// When a secret is not where it should be, or a user has none or two.
pub fn security(
    tls: Option<TlsSection>,
    users: &[UserSection],
    rules: Vec<AllowSection>,
    resolve: impl Fn(&str, &SecretRef) -> Result<Secret, String>,
) -> Result<SecurityOptions, String> {
    let users = users.iter().map(|user| {
        let name = user.name.clone();
        let setting = format!("the secret of the broker's user {name:?}");
        let secret = match (&user.password, &user.verifier) {
            (Some(password), None) => {
                UserSecret::Password(resolve(&setting, password)?.expose().to_owned())
            }
            (None, Some(verifier)) => {
                UserSecret::Verifier(resolve(&setting, verifier)?.expose().to_owned())
            }
            _ => {
                return Err(format!(
                    "the broker's user {name:?} needs a password or a verifier"
                ));
            }
        };
        Ok(User { name, secret })
    });
    Ok(SecurityOptions {
        users: users.collect::<Result<_, String>>()?,
        rules: rules.into_iter().map(rule).collect(),
        tls: tls.map(|tls| TlsOptions {
            certificate: tls.certificate,
            key: tls.key,
            client_ca: tls.client_ca,
        }),
    })
}

fn rule(section: AllowSection) -> Rule {
    let patterns = |names: &[String]| names.iter().map(|n| Pattern::from(n.as_str())).collect();
    Rule {
        topics: patterns(&section.topics),
        groups: patterns(&section.groups),
        transactional_ids: patterns(&section.transactional_ids),
        users: section.users,
        allow: section.operations.iter().map(|allowed| allowed.0).collect(),
        cluster: section.cluster,
    }
}
