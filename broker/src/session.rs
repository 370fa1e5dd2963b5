//! What is known of one connection's client.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::security::{Login, Principal};

/// One connection's client.
pub(crate) struct Session {
    /// Where it connected from.
    pub peer: SocketAddr,
    /// Whether nobody else can read what it sends: encrypted, or within this machine.
    pub private: bool,
    /// Who it is, once that is known. It stays the same from then on.
    principal: OnceLock<Principal>,
    login: Mutex<LoginState>,
}

#[derive(Default)]
struct LoginState {
    login: Login,
    /// It has failed: the connection is of no more use.
    failed: bool,
}

impl Session {
    /// A client of whom `principal` is known.
    pub fn new(peer: SocketAddr, encrypted: bool, principal: Option<Principal>) -> Self {
        let known = OnceLock::new();
        if let Some(principal) = principal {
            let _ = known.set(principal);
        }
        Self {
            peer,
            private: encrypted || peer.ip().is_loopback(),
            principal: known,
            login: Mutex::default(),
        }
    }

    /// Who it is; `None` until it has logged in.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.get()
    }

    /// It has logged in.
    pub fn logged_in(&self, principal: Principal) {
        let _ = self.principal.set(principal);
    }

    /// It could not log in.
    pub fn login_failed(&self) {
        self.lock().failed = true;
    }

    /// Whether it could not log in.
    pub fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// Takes the log-in out, to go on with it; meanwhile it is over.
    pub fn take_login(&self) -> Login {
        std::mem::replace(&mut self.lock().login, Login::Over)
    }

    /// Puts the log-in back.
    pub fn put_login(&self, login: Login) {
        self.lock().login = login;
    }

    fn lock(&self) -> MutexGuard<'_, LoginState> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
