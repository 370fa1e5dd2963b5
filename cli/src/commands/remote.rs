//! A connection to a running broker, for `outbox topic` and `outbox group`.

use outbox_broker::client::{Admin, ClientError, ClientLogin, ClientOptions, ClientTls};
use outbox_broker::{User, UserSecret};

use crate::args::Remote;
use crate::config::{BROKER_PASSWORD_VARIABLE, Settings};
use crate::exit::{Exit, Problem};

/// Connects to the broker that the command line names, or else to the one that is configured.
pub async fn connect(remote: &Remote, settings: &Settings) -> Result<Admin, Problem> {
    let broker = &settings.broker;
    let configured = || match &broker.advertise {
        Some(advertised) => advertised.to_string(),
        None => broker.listen.to_string(),
    };
    let mut options = ClientOptions::new(remote.broker.clone().unwrap_or_else(configured));
    let encrypted = remote.tls || remote.ca.is_some();
    options.tls = encrypted.then(|| ClientTls {
        ca: remote.ca.clone(),
    });
    if let Some(user) = &remote.user {
        let password = std::env::var(BROKER_PASSWORD_VARIABLE).ok();
        let password = password.or_else(|| configured_password(&broker.security.users, user));
        let password = password.ok_or_else(|| {
            let text = format!(
                "log in as {user:?}: no password. Cure: set {BROKER_PASSWORD_VARIABLE}, or name \
                 the user in outbox.toml"
            );
            Problem::new(Exit::Config, text)
        })?;
        let user = user.clone();
        options.login = Some(ClientLogin { user, password });
    }
    Ok(Admin::connect(&options).await?)
}

fn configured_password(users: &[User], name: &str) -> Option<String> {
    let user = users.iter().find(|user| user.name == name)?;
    match &user.secret {
        UserSecret::Password(password) => Some(password.clone()),
        UserSecret::Verifier(_) => None,
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Unreachable { .. } | ClientError::Silent { .. } => Exit::Unreachable,
            ClientError::Tls { .. } => Exit::Config,
            ClientError::Login { .. } | ClientError::Refused { .. } => Exit::Refused,
            ClientError::NotFound { .. } => Exit::NotFound,
            // `Protocol`, and whatever the client learns to say later.
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}
