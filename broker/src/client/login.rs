//! The client's side of SCRAM-SHA-512. It also checks that the broker knows the password.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::connection::Connection;
use super::error::ClientError;
use super::options::ClientLogin;
use crate::codec::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use crate::codec::{NO_ERROR, StrBytes};
use crate::security::limits::ITERATIONS_MAX;
use crate::security::{Hash, is_same, nonce};

const HASH: Hash = Hash::Sha512;

pub(super) async fn log_in(
    connection: &mut Connection,
    credentials: &ClientLogin,
) -> Result<(), ClientError> {
    let mechanism = StrBytes::from_static_str(HASH.mechanism());
    let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
    let shaken = connection.call(1, &request).await?;
    let (address, user) = (connection.address.clone(), credentials.user.clone());
    let refused = |reason: String| ClientError::Login {
        address: address.clone(),
        user: user.clone(),
        reason,
    };
    if shaken.error_code != NO_ERROR {
        return Err(refused(format!("it does not offer {}", HASH.mechanism())));
    }
    let nonce = nonce().map_err(|error| refused(error.to_string()))?;
    let name = credentials.user.replace('=', "=3D").replace(',', "=2C");
    let bare = format!("n={name},r={nonce}");
    let challenge = send(connection, format!("n,,{bare}"), &refused).await?;
    let proof = prove(&credentials.password, &nonce, &bare, &challenge);
    let (last, expected) = proof.map_err(|reason| refused(reason.to_owned()))?;
    let answer = send(connection, last, &refused).await?;
    match is_same(answer.as_bytes(), expected.as_bytes()) {
        true => Ok(()),
        false => Err(refused(
            "the broker cannot prove that it knows the password".to_owned(),
        )),
    }
}

async fn send(
    connection: &mut Connection,
    message: String,
    refused: impl Fn(String) -> ClientError,
) -> Result<String, ClientError> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into_bytes().into());
    let answer = connection.call(1, &request).await?;
    if answer.error_code != NO_ERROR {
        let said = answer.error_message.as_deref().unwrap_or("refused");
        return Err(refused(said.to_owned()));
    }
    String::from_utf8(answer.auth_bytes.to_vec())
        .map_err(|_| refused("the broker's message is not text".to_owned()))
}

/// The final message, and what the broker must answer to it.
fn prove(
    password: &str,
    nonce: &str,
    bare: &str,
    challenge: &str,
) -> Result<(String, String), &'static str> {
    const ODD: &str = "the broker's challenge cannot be read";
    let mut fields = challenge.split(',');
    let mut field = |name: &str| fields.next().and_then(|f| f.strip_prefix(name)).ok_or(ODD);
    let (both, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?);
    if !both.starts_with(nonce) || both.len() == nonce.len() {
        return Err("the broker's challenge is not the answer to this client's message");
    }
    let salt = STANDARD.decode(salt).map_err(|_| ODD)?;
    let iterations: NonZeroU32 = iterations.parse().map_err(|_| ODD)?;
    if iterations > ITERATIONS_MAX {
        return Err("the broker wants the password hashed too often");
    }
    let salted = HASH.salted(password.as_bytes(), &salt, iterations);
    let client_key = HASH.hmac(&salted, b"Client Key");
    let unproved = format!("c=biws,r={both}");
    let signed = format!("{bare},{challenge},{unproved}");
    let signature = HASH.hmac(&HASH.digest(&client_key), signed.as_bytes());
    let proof: Vec<u8> = client_key
        .iter()
        .zip(&signature)
        .map(|(a, b)| a ^ b)
        .collect();
    let own = HASH.hmac(&HASH.hmac(&salted, b"Server Key"), signed.as_bytes());
    let last = format!("{unproved},p={}", STANDARD.encode(proof));
    Ok((last, format!("v={}", STANDARD.encode(own))))
}
