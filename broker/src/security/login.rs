//! One client logs in: SASL, from the choice of a mechanism to the proof. Pure but for the nonce.

use std::sync::Arc;

use super::limits::TOKEN_BYTES_MAX;
use super::scram::{Challenge, First};
use super::users::{Users, nonce};
use super::verifier::Hash;

/// How a password is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// The password itself.
    Plain,
    /// A proof that it is known.
    Scram(Hash),
}

/// Where a log-in stands.
#[derive(Default)]
pub(crate) enum Login {
    /// No mechanism has been chosen.
    #[default]
    Idle,
    /// The first message is awaited.
    Chosen(Mechanism),
    /// The proof is awaited.
    Challenged(Arc<str>, Box<Challenge>),
    /// It is over, one way or the other.
    Over,
}

/// What a message led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this, and wait for more.
    Continue(Vec<u8>),
    /// It is this user; send this.
    Done(Arc<str>, Vec<u8>),
}

/// Why nobody is logged in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoginError {
    /// A message came that cannot come now.
    #[error("the message does not belong here")]
    State,
    /// A message is none of its mechanism. What it holds is not said: it may be a password.
    #[error("the message cannot be read: {0}")]
    Malformed(&'static str),
    /// The user is not there, or the password is another one. Which one is not said.
    #[error("the user name or the password is wrong")]
    Wrong,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl Mechanism {
    /// All, the best one first.
    pub const ALL: [Self; 3] = [
        Self::Scram(Hash::Sha512),
        Self::Scram(Hash::Sha256),
        Self::Plain,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(hash) => hash.mechanism(),
        }
    }
}

impl Login {
    /// Begins with a mechanism.
    pub fn choose(&mut self, mechanism: Mechanism) -> Result<(), LoginError> {
        match self {
            Self::Idle => {
                *self = Self::Chosen(mechanism);
                Ok(())
            }
            _ => Err(LoginError::State),
        }
    }

    /// Takes a message. Takes milliseconds for PLAIN, on purpose. After an error it is over.
    pub fn step(&mut self, users: &Users, message: &[u8]) -> Result<Step, LoginError> {
        let state = std::mem::replace(self, Self::Over);
        if message.len() > TOKEN_BYTES_MAX {
            return Err(LoginError::Malformed("it is too long"));
        }
        match state {
            Self::Idle | Self::Over => Err(LoginError::State),
            Self::Chosen(Mechanism::Plain) => plain(users, message),
            Self::Chosen(Mechanism::Scram(hash)) => {
                let first = First::read(message).map_err(LoginError::Malformed)?;
                let verifier = users.verifier(&first.user, hash);
                let user: Arc<str> = first.user.as_str().into();
                let nonce = nonce().map_err(|_| LoginError::Random)?;
                let (answer, challenge) = first.challenge(verifier, &nonce);
                *self = Self::Challenged(user, Box::new(challenge));
                Ok(Step::Continue(answer.into_bytes()))
            }
            Self::Challenged(user, challenge) => {
                let proof = challenge.check(message).map_err(LoginError::Malformed)?;
                let proof = proof.ok_or(LoginError::Wrong)?;
                Ok(Step::Done(user, proof.into_bytes()))
            }
        }
    }
}

/// RFC 4616: `acts as NUL user NUL password`.
fn plain(users: &Users, message: &[u8]) -> Result<Step, LoginError> {
    let text = str::from_utf8(message).map_err(|_| LoginError::Malformed("it is not UTF-8"))?;
    let mut parts = text.split('\0');
    let (Some(acts_as), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(LoginError::Malformed("it has not three parts"));
    };
    if !acts_as.is_empty() && acts_as != user {
        return Err(LoginError::Malformed("a user may act as itself only"));
    }
    match users.is_password(user, password.as_bytes()) {
        true => Ok(Step::Done(user.into(), Vec::new())),
        false => Err(LoginError::Wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::{User, UserSecret};
    use super::*;

    fn users() -> Users {
        let user = |name: &str, password: &str| User {
            name: name.to_owned(),
            secret: UserSecret::Password(password.to_owned()),
        };
        Users::new(&[user("shop", "secret"), user("mail", "other")]).expect("users")
    }

    fn plain_step(message: &str) -> Result<Step, LoginError> {
        let mut login = Login::default();
        login.choose(Mechanism::Plain).expect("a choice");
        login.step(&users(), message.as_bytes())
    }

    #[test]
    fn a_user_logs_in_by_its_own_password_only() {
        let done = Ok(Step::Done("shop".into(), Vec::new()));
        assert_eq!(plain_step("\0shop\0secret"), done);
        assert_eq!(plain_step("shop\0shop\0secret"), done);
        for wrong in ["\0shop\0other", "\0nobody\0secret", "\0\0", "\0shop\0"] {
            assert_eq!(plain_step(wrong), Err(LoginError::Wrong), "{wrong:?}");
        }
        for bad in ["", "shop", "\0shop", "mail\0shop\0secret", "\0a\0b\0c"] {
            assert!(
                matches!(plain_step(bad), Err(LoginError::Malformed(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn messages_come_in_their_order_or_not_at_all() {
        let users = users();
        let mut login = Login::default();
        assert_eq!(
            login.step(&users, b"\0shop\0secret"),
            Err(LoginError::State)
        );
        assert_eq!(
            login.choose(Mechanism::Plain),
            Err(LoginError::State),
            "it is over"
        );
        let mut login = Login::default();
        login
            .choose(Mechanism::Scram(Hash::Sha256))
            .expect("a choice");
        assert_eq!(login.choose(Mechanism::Plain), Err(LoginError::State));
        assert!(matches!(
            login.step(&users, b"n,,n=shop,r=x"),
            Ok(Step::Continue(_))
        ));
        assert!(matches!(
            login.step(&users, b"n,,n=shop,r=x"),
            Err(LoginError::Malformed(_))
        ));
        assert_eq!(login.step(&users, b"c=biws"), Err(LoginError::State));
    }

    #[test]
    fn a_challenge_does_not_tell_whether_a_user_is_there() {
        let users = users();
        let salt = |name: &str| {
            let mut login = Login::default();
            login
                .choose(Mechanism::Scram(Hash::Sha512))
                .expect("a choice");
            let step = login.step(&users, format!("n,,n={name},r=x").as_bytes());
            let Ok(Step::Continue(answer)) = step else {
                panic!("no challenge for {name}")
            };
            let answer = String::from_utf8(answer).expect("text");
            answer.split_once(",s=").expect("a salt").1.to_owned()
        };
        assert_eq!(salt("shop"), salt("shop"));
        assert_eq!(
            salt("nobody"),
            salt("nobody"),
            "as that of somebody who is there"
        );
        assert_eq!(salt("shop").len(), salt("nobody").len());
        assert_ne!(salt("nobody"), salt("anybody"));
    }
}
