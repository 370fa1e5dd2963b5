//! Users, and how they log in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outbox_broker::{BrokerOptions, User, UserSecret};
use proto_kafka::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use proto_kafka::protocol::StrBytes;
use ring::{digest, hmac, pbkdf2};

use crate::rig::{Client, Rig};

pub const PASSWORD: &str = "correct horse battery staple";

pub fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        secret: UserSecret::Password(PASSWORD.to_owned()),
    }
}

/// A broker where these users must log in.
pub async fn guarded(change: impl FnOnce(&mut BrokerOptions)) -> Rig {
    Rig::start_with(|options| {
        options.security.users = vec![user("shop"), user("mail")];
        change(options);
    })
    .await
}

pub async fn handshake(client: &mut Client, mechanism: &str) -> SaslHandshakeResponse {
    let mechanism = StrBytes::from_string(mechanism.to_owned());
    let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
    client.call(1, &request).await
}

pub async fn authenticate(client: &mut Client, message: &[u8]) -> SaslAuthenticateResponse {
    let message = Bytes::copy_from_slice(message);
    let request = SaslAuthenticateRequest::default().with_auth_bytes(message);
    client.call(2, &request).await
}

/// Logs in by PLAIN. Answers the error.
pub async fn plain(client: &mut Client, user: &str, password: &str) -> i16 {
    assert_eq!(handshake(client, "PLAIN").await.error_code, 0);
    let message = format!("\0{user}\0{password}");
    authenticate(client, message.as_bytes()).await.error_code
}

/// A connection of a user who has logged in.
pub async fn logged_in(rig: &Rig, user: &str) -> Client {
    let mut client = rig.connect().await;
    assert_eq!(plain(&mut client, user, PASSWORD).await, 0);
    client
}

/// The client's side of SCRAM, and the hash it uses.
pub struct Scram {
    pub mechanism: &'static str,
    pub hmac: hmac::Algorithm,
    pub digest: &'static digest::Algorithm,
    pub pbkdf2: pbkdf2::Algorithm,
    /// Puts its own nonce in front once more, as librdkafka before 2.6 does.
    pub repeats_nonce: bool,
}

pub fn scrams() -> [Scram; 2] {
    let sha256 = Scram {
        mechanism: "SCRAM-SHA-256",
        hmac: hmac::HMAC_SHA256,
        digest: &digest::SHA256,
        pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
        repeats_nonce: false,
    };
    let sha512 = Scram {
        mechanism: "SCRAM-SHA-512",
        hmac: hmac::HMAC_SHA512,
        digest: &digest::SHA512,
        pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512,
        repeats_nonce: true,
    };
    [sha256, sha512]
}

impl Scram {
    fn hmac(&self, key: &[u8], text: &str) -> Vec<u8> {
        let key = hmac::Key::new(self.hmac, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    }

    /// Logs in, and checks that the broker knows the password too. Answers the error.
    pub async fn log_in(&self, client: &mut Client, user: &str, password: &str) -> i16 {
        let shaken = handshake(client, self.mechanism).await;
        assert_eq!(shaken.error_code, 0);
        let own_nonce = "fyko+d2lbbFgONRv9qkxdawL";
        let bare = format!("n={user},r={own_nonce}");
        let challenge = authenticate(client, format!("n,,{bare}").as_bytes()).await;
        assert_eq!(challenge.error_code, 0);
        let challenge = String::from_utf8(challenge.auth_bytes.to_vec()).expect("text");
        let fields: Vec<&str> = challenge.split(',').map(|f| &f[2..]).collect();
        let [nonce, salt, iterations] = fields[..] else {
            panic!("no challenge: {challenge}")
        };
        let mut salted = vec![0; self.digest.output_len()];
        let iterations = iterations.parse().expect("a number");
        let salt = STANDARD.decode(salt).expect("base64");
        pbkdf2::derive(
            self.pbkdf2,
            iterations,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        let client_key = self.hmac(&salted, "Client Key");
        let stored_key = digest::digest(self.digest, &client_key);
        let repeated = if self.repeats_nonce { own_nonce } else { "" };
        let unproved = format!("c=biws,r={repeated}{nonce}");
        let signed = format!("{bare},{challenge},{unproved}");
        let signature = self.hmac(stored_key.as_ref(), &signed);
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(a, b)| a ^ b)
            .collect();
        let last = format!("{unproved},p={}", STANDARD.encode(proof));
        let answer = authenticate(client, last.as_bytes()).await;
        if answer.error_code == 0 {
            let own = self.hmac(&self.hmac(&salted, "Server Key"), &signed);
            assert_eq!(answer.auth_bytes, format!("v={}", STANDARD.encode(own)));
        }
        answer.error_code
    }
}
