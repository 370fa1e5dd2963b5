//! Alerts to a URL.

use std::error::Error;
use std::fmt;
use std::sync::Once;

use async_trait::async_trait;
use outbox_core::{Alert, AlertSink, AlertState};
use reqwest::{Client, Url};

use crate::limits;

/// What the webhook understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The alert as a JSON object with the fields of [`Alert`].
    #[default]
    Json,
    /// `{"text": "…"}`: Slack, Mattermost, Discord's `/slack` endpoint, Google Chat.
    Slack,
}

/// Posts each alert to a URL.
///
/// The URL often holds a secret: it is never logged, and taken out of every error.
#[derive(Clone)]
pub struct WebhookSink {
    client: Client,
    url: Url,
    format: WebhookFormat,
}

/// Why a webhook was refused. The URL is left out: it may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhook {
    /// Not a URL.
    #[error("use the webhook: its url cannot be read ({0})")]
    Url(String),
    /// Not a web address.
    #[error("use the webhook: its url begins with {0:?}, allowed are http and https")]
    Scheme(String),
    /// No TLS, or no client.
    #[error("use the webhook: {0}")]
    Client(String),
}

impl WebhookSink {
    /// A sink for `url`.
    ///
    /// # Errors
    /// When `url` is not an http(s) URL. The text never repeats it.
    pub fn new(url: &str, format: WebhookFormat) -> Result<Self, InvalidWebhook> {
        ensure_crypto_provider();
        let url = Url::parse(url).map_err(|e| InvalidWebhook::Url(e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidWebhook::Scheme(url.scheme().to_owned()));
        }
        let client = Client::builder()
            .timeout(limits::SINK_TIMEOUT)
            // A redirect could carry the alert to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| InvalidWebhook::Client(e.without_url().to_string()))?;
        Ok(Self {
            client,
            url,
            format,
        })
    }
}

impl fmt::Debug for WebhookSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format;
        f.debug_struct("WebhookSink")
            .field("format", &format)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl AlertSink for WebhookSink {
    fn name(&self) -> &str {
        "webhook"
    }

    async fn send(&self, alert: &Alert) -> Result<(), Box<dyn Error + Send + Sync>> {
        let body = match self.format {
            WebhookFormat::Json => serde_json::to_value(alert)?,
            WebhookFormat::Slack => serde_json::json!({ "text": slack_text(alert) }),
        };
        let request = self.client.post(self.url.clone()).json(&body);
        let response = request.send().await.map_err(reqwest::Error::without_url)?;
        response
            .error_for_status()
            .map_err(reqwest::Error::without_url)?;
        Ok(())
    }
}

/// One line with a mark that shows in a channel.
fn slack_text(alert: &Alert) -> String {
    let mark = match alert.state {
        AlertState::Firing => ":rotating_light:",
        AlertState::Resolved => ":white_check_mark:",
    };
    // Slack reads these three as markup.
    let text = alert
        .text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("{mark} outbox: {text}")
}

/// Makes ring the process-wide TLS provider, unless one was chosen. Without it rustls panics at
/// the first connection when two providers are linked. Call it in every main; harmless to repeat.
pub fn ensure_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that somebody chose another one before, which is their right.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Json;
    use axum::routing::post;
    use outbox_core::AlertKind;
    use tokio::sync::mpsc;

    fn alert() -> Alert {
        Alert {
            kind: AlertKind::Outage,
            state: AlertState::Firing,
            destination: Some("orders".to_owned()),
            text: "it is <down>".to_owned(),
            count: 1,
            at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    /// A server that hands on what it was sent, under a path that is the secret.
    async fn server() -> (String, mpsc::Receiver<serde_json::Value>) {
        let (sender, received) = mpsc::channel(4);
        let app = axum::Router::new().route(
            "/hook",
            post(move |Json(body): Json<serde_json::Value>| async move {
                let _ = sender.send(body).await;
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, app).await });
        (format!("http://{address}"), received)
    }

    #[tokio::test]
    async fn both_formats_arrive() {
        let (base, mut received) = server().await;
        let url = format!("{base}/hook");
        let json = WebhookSink::new(&url, WebhookFormat::Json).expect("valid");
        json.send(&alert()).await.expect("delivered");
        let body = received.recv().await.expect("a body");
        assert_eq!(body["kind"], "outage");
        assert_eq!(body["destination"], "orders");
        let slack = WebhookSink::new(&url, WebhookFormat::Slack).expect("valid");
        slack.send(&alert()).await.expect("delivered");
        let body = received.recv().await.expect("a body");
        assert_eq!(body["text"], ":rotating_light: outbox: it is &lt;down&gt;");
    }

    #[tokio::test]
    async fn a_failure_never_shows_the_url() {
        let (base, _received) = server().await;
        let url = format!("{base}/top-secret-token");
        let sink = WebhookSink::new(&url, WebhookFormat::Json).expect("valid");
        let error = sink.send(&alert()).await.expect_err("no such path");
        assert!(error.to_string().contains("404"), "{error}");
        assert!(!format!("{error} {error:?} {sink:?}").contains("secret"));
        let refused = WebhookSink::new("http://127.0.0.1:1/top-secret", WebhookFormat::Json);
        let error = refused
            .expect("valid")
            .send(&alert())
            .await
            .expect_err("nobody listens");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_repeating_it() {
        let scheme = WebhookSink::new("ftp://secret", WebhookFormat::Json).expect_err("ftp");
        assert!(!scheme.to_string().contains("secret"));
        let junk = WebhookSink::new("top secret", WebhookFormat::Json).expect_err("junk");
        assert!(!junk.to_string().contains("secret"));
    }
}
