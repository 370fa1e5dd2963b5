//! Who a client is, and what it may do.
//!
//! In reading order:
//!
//! - [`options`]: users, rules and certificates, as they are configured.
//! - `login`: SASL, from the choice of a mechanism to the proof. `scram` and `verifier` are the
//!   proof, `users` knows who there is; passwords are not kept.
//! - `tls`: encrypted connections.
//! - `access`: what each user may do.
//! - `limits`: what somebody gets who is nobody yet.

pub mod options;

mod access;
pub(crate) mod limits;
mod login;
mod scram;
mod tls;
mod users;
mod verifier;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

pub(crate) use access::{Principal, Resource};
pub(crate) use login::{Login, LoginError, Mechanism, Step};
pub(crate) use options::Operation;
use options::{SecurityError, SecurityOptions};

use access::Access;
use users::Users;
pub(crate) use users::nonce;
pub(crate) use verifier::{Hash, is_same};

/// The security of a running broker.
pub(crate) struct Security {
    users: Arc<Users>,
    access: Access,
    /// Encrypts connections, if they are to be.
    pub tls: Option<TlsAcceptor>,
    /// Every client has shown a certificate.
    certified: bool,
    hashing: Semaphore,
}

impl Security {
    /// Reads certificates and hashes passwords. Blocks, some milliseconds for each user.
    ///
    /// # Errors
    /// When files or rules are of no use.
    pub fn new(options: &SecurityOptions) -> Result<Self, SecurityError> {
        options.check()?;
        Ok(Self {
            users: Arc::new(Users::new(&options.users)?),
            access: Access::new(&options.rules),
            tls: options.tls.as_ref().map(tls::acceptor).transpose()?,
            certified: options.tls.as_ref().is_some_and(|t| t.client_ca.is_some()),
            hashing: Semaphore::new(limits::HASHING_MAX),
        })
    }

    /// Who a client is that has connected and said nothing so far; `None` when it must log in.
    pub fn newcomer(&self) -> Option<Principal> {
        match (self.users.is_empty(), self.certified) {
            (false, _) => None,
            (true, true) => Some(Principal::Certificate),
            (true, false) => Some(Principal::Anonymous),
        }
    }

    /// How a client may log in. A password is not asked for where others could read it.
    pub fn mechanisms(&self, private: bool) -> impl Iterator<Item = Mechanism> {
        let offered = if self.users.is_empty() {
            &[][..]
        } else {
            &Mechanism::ALL
        };
        let offered = offered.iter().copied();
        offered.filter(move |mechanism| private || *mechanism != Mechanism::Plain)
    }

    /// Takes a message of a log-in, on a thread where it may take its time.
    ///
    /// Cancellation: the log-in is lost.
    pub async fn step(
        &self,
        mut login: Login,
        message: bytes::Bytes,
    ) -> (Login, Result<Step, LoginError>) {
        let users = self.users.clone();
        let _turn = self.hashing.acquire().await;
        let work = move || {
            let step = login.step(&users, &message);
            (login, step)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or((Login::Over, Err(LoginError::State)))
    }

    /// Whether somebody may. Every request asks this before it does anything.
    pub fn allows(&self, who: &Principal, operation: Operation, to: Resource<'_>) -> bool {
        self.access.allows(who, operation, to)
    }
}

#[cfg(test)]
mod tests {
    use super::options::{User, UserSecret};
    use super::*;

    #[test]
    fn a_password_is_asked_for_only_where_nobody_else_can_read_it() {
        let secret = UserSecret::Password("secret".to_owned());
        let name = "shop".to_owned();
        let users = vec![User { name, secret }];
        let options = SecurityOptions {
            users,
            ..SecurityOptions::default()
        };
        let security = Security::new(&options).expect("security");
        assert!(security.mechanisms(true).any(|m| m == Mechanism::Plain));
        assert!(!security.mechanisms(false).any(|m| m == Mechanism::Plain));
        assert_eq!(security.newcomer(), None);
    }
}
