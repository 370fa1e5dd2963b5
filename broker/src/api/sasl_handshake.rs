//! SaslHandshake: how a client wants to log in.

use super::Call;
use crate::codec::messages::{SaslHandshakeRequest, SaslHandshakeResponse};
use crate::codec::{ErrorCode, NO_ERROR, StrBytes};
use crate::security::Mechanism;

/// The first version that is followed by SaslAuthenticate. The one before is followed by bytes
/// without a head, as clients of 2017 sent them.
const WITH_AUTHENTICATE: i16 = 1;

pub(super) async fn handle(
    call: &Call<'_>,
    request: SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    let offered: Vec<Mechanism> = call
        .shared
        .security
        .mechanisms(call.session.private)
        .collect();
    let chosen = offered.iter().find(|m| m.name() == &*request.mechanism);
    let outcome = match chosen {
        _ if call.version < WITH_AUTHENTICATE => Err(ErrorCode::UnsupportedVersion),
        None => Err(ErrorCode::UnsupportedSaslMechanism),
        Some(mechanism) => choose(call, *mechanism),
    };
    if let Err(error) = outcome {
        tracing::warn!(peer = %call.session.peer, %error, "a client cannot log in as it wants");
    }
    let names = offered.iter().map(|m| StrBytes::from_static_str(m.name()));
    SaslHandshakeResponse::default()
        .with_error_code(outcome.err().map_or(NO_ERROR, |error| error.code()))
        .with_mechanisms(names.collect())
}

fn choose(call: &Call<'_>, mechanism: Mechanism) -> Result<(), ErrorCode> {
    let mut login = call.session.take_login();
    let chosen = login.choose(mechanism);
    call.session.put_login(login);
    chosen.map_err(|_| ErrorCode::IllegalSaslState)
}
