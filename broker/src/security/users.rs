//! Who may log in, and by which password.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};

use super::limits::{ITERATIONS, NONCE_BYTES, SALT_BYTES};
use super::options::{SecurityError, User, UserSecret};
use super::verifier::{Hash, Verifier};

/// The users of a broker. Passwords are not kept.
pub(crate) struct Users {
    users: HashMap<Arc<str>, Vec<Verifier>>,
    /// Makes up the salts of users that are not there, the same one for each name each time, so
    /// that nobody learns who is.
    decoy: Vec<u8>,
}

impl Users {
    /// Hashes passwords: some milliseconds for each user.
    pub fn new(users: &[User]) -> Result<Self, SecurityError> {
        let mut known = HashMap::with_capacity(users.len());
        for user in users {
            let name: Arc<str> = user.name.as_str().into();
            let verifiers = verifiers(user)?;
            if name.is_empty() || known.insert(name, verifiers).is_some() {
                return Err(SecurityError::Name {
                    user: user.name.clone(),
                });
            }
        }
        let decoy = random::<32>()?.to_vec();
        Ok(Self {
            users: known,
            decoy,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The verifier by which a user logs in with SCRAM. One who is not there, or has a verifier of
    /// the other mechanism only, gets one that no password fits.
    pub fn verifier(&self, name: &str, hash: Hash) -> Verifier {
        let known = self.users.get(name).into_iter().flatten();
        let found = known.into_iter().find(|v| v.hash == hash);
        found.cloned().unwrap_or_else(|| {
            let mut salt = hash.hmac(&self.decoy, name.as_bytes());
            salt.truncate(SALT_BYTES);
            Verifier {
                hash,
                salt,
                iterations: ITERATIONS,
                stored_key: hash.hmac(&self.decoy, b"nobody's"),
                server_key: hash.hmac(&self.decoy, b"nobody"),
            }
        })
    }

    /// Whether this is the user's password. Takes milliseconds, whether the user is there or not.
    pub fn is_password(&self, name: &str, password: &[u8]) -> bool {
        let known = self.users.get(name).and_then(|verifiers| verifiers.first());
        let verifier = known
            .cloned()
            .unwrap_or_else(|| self.verifier("", Hash::Sha256));
        verifier.is_password(password) && known.is_some()
    }
}

fn verifiers(user: &User) -> Result<Vec<Verifier>, SecurityError> {
    match &user.secret {
        UserSecret::Verifier(text) => {
            let verifier: Verifier = text.parse().map_err(|reason| SecurityError::Verifier {
                user: user.name.clone(),
                reason,
            })?;
            Ok(vec![verifier])
        }
        UserSecret::Password(password) if password.is_empty() => Err(SecurityError::Password {
            user: user.name.clone(),
        }),
        UserSecret::Password(password) => {
            let derive = |hash| {
                let salt = random::<SALT_BYTES>()?;
                Ok(Verifier::derive(
                    hash,
                    password.as_bytes(),
                    &salt,
                    ITERATIONS,
                ))
            };
            Ok(vec![derive(Hash::Sha256)?, derive(Hash::Sha512)?])
        }
    }
}

/// This side's part of a nonce.
pub(crate) fn nonce() -> Result<String, SecurityError> {
    Ok(STANDARD_NO_PAD.encode(random::<NONCE_BYTES>()?))
}

fn random<const N: usize>() -> Result<[u8; N], SecurityError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| SecurityError::Random)
}
