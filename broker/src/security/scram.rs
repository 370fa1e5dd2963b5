//! SCRAM, the server's side (RFC 5802 and 7677), without channel binding: pure.
//!
//! The client proves that it knows the password, and the server that it knows the verifier;
//! neither tells the other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::verifier::{Verifier, is_same};

/// The client's first message, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct First {
    /// Who it says it is.
    pub user: String,
    /// Header that says that the channel is not bound.
    header: String,
    /// The message without its header.
    bare: String,
    nonce: String,
}

/// What must be known to check the client's final message.
pub(crate) struct Challenge {
    verifier: Verifier,
    header: String,
    nonce: String,
    /// First messages of both, as they are proved.
    messages: String,
}

/// Why a message is none.
pub(crate) type Malformed = &'static str;

impl First {
    /// Reads `n,,n=user,r=nonce`.
    pub fn read(message: &[u8]) -> Result<Self, Malformed> {
        let text = str::from_utf8(message).map_err(|_| "it is not UTF-8")?;
        let mut parts = text.splitn(3, ',');
        let (Some(binding), Some(acts_as), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("it has no header");
        };
        if !matches!(binding, "n" | "y") {
            return Err("it asks for a bound channel, which is not offered");
        }
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|f| f.strip_prefix("n="));
        let nonce = fields.next().and_then(|f| f.strip_prefix("r="));
        let (Some(user), Some(nonce)) = (user, nonce.filter(|n| !n.is_empty())) else {
            return Err("it has no user and nonce");
        };
        if fields.any(|field| field == "tokenauth=true") {
            return Err("delegation tokens are not served");
        }
        let user = unescape(user)?;
        let acts_as = match acts_as.strip_prefix("a=") {
            Some(name) => Some(unescape(name)?),
            None if acts_as.is_empty() => None,
            None => return Err("its header is none"),
        };
        if acts_as.is_some_and(|name| name != user) {
            return Err("a user may act as itself only");
        }
        Ok(Self {
            user,
            header: text[..text.len() - bare.len()].to_owned(),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }

    /// The answer, and what is needed to check the client's.
    pub fn challenge(self, verifier: Verifier, own_nonce: &str) -> (String, Challenge) {
        let nonce = format!("{}{own_nonce}", self.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let message = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let challenge = Challenge {
            verifier,
            header: self.header,
            nonce,
            messages: format!("{},{message}", self.bare),
        };
        (message, challenge)
    }
}

impl Challenge {
    /// Checks `c=biws,r=nonce,p=proof`. Answers this side's proof, or `None` when the client knows
    /// another password.
    pub fn check(&self, message: &[u8]) -> Result<Option<String>, Malformed> {
        let text = str::from_utf8(message).map_err(|_| "it is not UTF-8")?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or("it has no proof")?;
        let mut fields = without_proof.split(',');
        let header = fields.next().and_then(|f| f.strip_prefix("c="));
        let nonce = fields.next().and_then(|f| f.strip_prefix("r="));
        if header != Some(&STANDARD.encode(&self.header)) {
            return Err("its header is not that of the first message");
        }
        // As Kafka does it: librdkafka before 2.6 puts its own part in front once more. The proof
        // covers what was sent, and this side's part is in it.
        if !nonce.is_some_and(|nonce| nonce.ends_with(&self.nonce)) {
            return Err("its nonce is not that of this exchange");
        }
        let proof = STANDARD
            .decode(proof)
            .map_err(|_| "its proof is not in base64")?;
        let signed = format!("{},{without_proof}", self.messages);
        let Verifier {
            hash,
            stored_key,
            server_key,
            ..
        } = &self.verifier;
        let signature = hash.hmac(stored_key, signed.as_bytes());
        if proof.len() != signature.len() {
            return Err("its proof has another length than the hash");
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        if !is_same(&hash.digest(&client_key), stored_key) {
            return Ok(None);
        }
        let own = STANDARD.encode(hash.hmac(server_key, signed.as_bytes()));
        Ok(Some(format!("v={own}")))
    }
}

/// `=2C` stands for a comma in a name, and `=3D` for an equals sign.
fn unescape(name: &str) -> Result<String, Malformed> {
    const BAD: Malformed = "its user's name is not escaped as it must be";
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        let (c, tail) = match (after.strip_prefix("2C"), after.strip_prefix("3D")) {
            (Some(tail), _) => (',', tail),
            (_, Some(tail)) => ('=', tail),
            _ => return Err(BAD),
        };
        out.push(c);
        rest = tail;
    }
    out.push_str(rest);
    if out.is_empty() { Err(BAD) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::super::verifier::Hash;
    use super::*;
    use proptest::prelude::*;

    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";

    /// The verifier of RFC 7677's example.
    fn pencil() -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let iterations = 4_096.try_into().expect("not zero");
        Verifier::derive(Hash::Sha256, b"pencil", &salt, iterations)
    }

    fn challenge() -> (String, Challenge) {
        let first = First::read(FIRST).expect("a first message");
        first.challenge(pencil(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    }

    #[test]
    fn the_example_of_rfc_7677_is_played_to_the_letter() {
        let (message, challenge) = challenge();
        assert_eq!(
            message,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let answer = challenge.check(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        let expected = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(answer, Ok(Some(expected.to_owned())));
    }

    #[test]
    fn a_wrong_proof_is_refused() {
        let (_, challenge) = challenge();
        let answer = challenge.check(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
              p=AHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        assert_eq!(answer, Ok(None));
    }

    #[test]
    fn a_final_message_of_another_exchange_is_refused() {
        let (_, challenge) = challenge();
        for message in [
            &b""[..],
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            b"c=eSws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=AAAA",
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=AAAA",
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=?",
        ] {
            assert!(challenge.check(message).is_err(), "{message:?}");
        }
    }

    #[test]
    fn names_are_unescaped_and_nobody_acts_as_somebody_else() {
        let user = |m: &[u8]| First::read(m).map(|first| first.user);
        assert_eq!(user(b"n,,n=a=2Cb=3Dc,r=x"), Ok("a,b=c".to_owned()));
        assert_eq!(user(b"y,a=me,n=me,r=x"), Ok("me".to_owned()));
        for message in [
            &b"n,a=root,n=me,r=x"[..],
            b"p=tls-unique,,n=me,r=x",
            b"n,,n=a=b,r=x",
            b"n,,n=,r=x",
            b"n,,n=me,r=",
            b"n,,r=x,n=me",
            b"n,,n=me,r=x,tokenauth=true",
            b"\xff",
        ] {
            assert!(user(message).is_err(), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_whatever_makes_a_panic_or_a_log_in(
            first in prop::collection::vec(any::<u8>(), 0..64),
            last in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = First::read(&first);
            let (_, challenge) = challenge();
            prop_assert!(!matches!(challenge.check(&last), Ok(Some(_))));
        }
    }
}
