//! SaslAuthenticate: one message of a log-in.

use super::Call;
use crate::codec::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use crate::codec::{ErrorCode, StrBytes};
use crate::security::limits::FAILED_LOGIN_PAUSE;
use crate::security::{LoginError, Principal, Step};

pub(super) async fn handle(
    call: &Call<'_>,
    request: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let session = call.session;
    let login = session.take_login();
    let (login, step) = call.shared.security.step(login, request.auth_bytes).await;
    session.put_login(login);
    match step {
        Ok(Step::Continue(message)) => {
            SaslAuthenticateResponse::default().with_auth_bytes(message.into())
        }
        Ok(Step::Done(user, message)) => {
            let principal = Principal::User(user);
            tracing::debug!(peer = %session.peer, %principal, "logged in");
            session.logged_in(principal);
            SaslAuthenticateResponse::default().with_auth_bytes(message.into())
        }
        Err(error) => refused(call, &error).await,
    }
}

async fn refused(call: &Call<'_>, error: &LoginError) -> SaslAuthenticateResponse {
    // Neither the name nor the message is logged: people type passwords into the wrong field.
    tracing::warn!(peer = %call.session.peer, %error, "a log-in failed");
    tokio::time::sleep(FAILED_LOGIN_PAUSE).await;
    call.session.login_failed();
    let code = match error {
        LoginError::State => ErrorCode::IllegalSaslState,
        _ => ErrorCode::SaslAuthenticationFailed,
    };
    SaslAuthenticateResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(format!(
            "log-in failed: {error}"
        ))))
}
