//! What is kept of a password: enough to check it, not enough to log in with it.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

use super::limits::{ITERATIONS_MAX, ITERATIONS_MIN, SALT_BYTES_MAX};

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

/// RFC 5802's StoredKey and ServerKey, with what they were made from a password with. `Debug` does
/// not print keys, for with a StoredKey a password can be guessed at leisure.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier {
    pub hash: Hash,
    pub salt: Vec<u8>,
    pub iterations: NonZeroU32,
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
}

impl Hash {
    /// The name of the mechanism.
    pub fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    pub fn hmac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, key), text);
        tag.as_ref().to_vec()
    }

    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }

    /// Bytes of a key.
    pub fn len(self) -> usize {
        match self {
            Self::Sha256 => digest::SHA256_OUTPUT_LEN,
            Self::Sha512 => digest::SHA512_OUTPUT_LEN,
        }
    }

    /// The password, hashed so often that guessing is dear. Takes milliseconds.
    pub fn salted(self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; self.len()];
        pbkdf2::derive(algorithm, iterations, salt, password, &mut salted);
        salted
    }
}

impl Verifier {
    /// From a password. Takes milliseconds, on purpose.
    pub fn derive(hash: Hash, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let salted = hash.salted(password, salt, iterations);
        let client_key = hash.hmac(&salted, b"Client Key");
        Self {
            hash,
            salt: salt.to_vec(),
            iterations,
            stored_key: hash.digest(&client_key),
            server_key: hash.hmac(&salted, b"Server Key"),
        }
    }

    /// Whether this is the password. Takes milliseconds, on purpose.
    pub fn is_password(&self, password: &[u8]) -> bool {
        let other = Self::derive(self.hash, password, &self.salt, self.iterations);
        is_same(&other.stored_key, &self.stored_key)
    }
}

/// Compares in a time that tells nothing of where two secrets differ.
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// As PostgreSQL writes it: `SCRAM-SHA-256$4096:SALT$STOREDKEY:SERVERKEY`, in base64.
impl FromStr for Verifier {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str =
            "is not SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY (or SCRAM-SHA-512) in base64";
        let mut parts = text.split('$');
        let (Some(mechanism), Some(salting), Some(keys), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SHAPE);
        };
        let hashes = [Hash::Sha256, Hash::Sha512];
        let hash = hashes.into_iter().find(|h| h.mechanism() == mechanism);
        let hash = hash.ok_or(SHAPE)?;
        let (iterations, salt) = salting.split_once(':').ok_or(SHAPE)?;
        let (stored, server) = keys.split_once(':').ok_or(SHAPE)?;
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_| SHAPE);
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| SHAPE)?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err("must have 4096 to 1000000 iterations");
        }
        let verifier = Self {
            hash,
            iterations,
            salt: bytes(salt)?,
            stored_key: bytes(stored)?,
            server_key: bytes(server)?,
        };
        let keys_fit =
            verifier.stored_key.len() == hash.len() && verifier.server_key.len() == hash.len();
        let salt_fits = (1..=SALT_BYTES_MAX).contains(&verifier.salt.len());
        (keys_fit && salt_fits).then_some(verifier).ok_or(SHAPE)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("mechanism", &self.hash.mechanism())
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of RFC 7677's example, whose password is `pencil`.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                          WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                          wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_that_was_made_elsewhere_checks_the_password() {
        let verifier: Verifier = PENCIL.parse().expect("a verifier");
        assert!(verifier.is_password(b"pencil"));
        assert!(!verifier.is_password(b"Pencil"));
        assert!(!verifier.is_password(b""));
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        let weak = PENCIL.replace("4096", "4095");
        for text in [
            "",
            "pencil",
            "SCRAM-SHA-1$4096:aa$bb:cc",
            &PENCIL[..60],
            &weak,
        ] {
            assert!(text.parse::<Verifier>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_verifier_does_not_print_its_keys() {
        let verifier: Verifier = PENCIL.parse().expect("a verifier");
        let printed = format!("{verifier:?}");
        assert!(
            !printed.contains("key") && !printed.contains("salt"),
            "{printed}"
        );
    }
}
