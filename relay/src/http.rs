//! `/livez`, `/readyz` and `/metrics`, of the relay and of any other daemon of the project.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::HttpError;
use crate::options::HttpOptions;
use crate::telemetry;

/// Buckets of everything measured in seconds: 100 µs to a minute.
const SECONDS: [f64; 15] = [
    0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0,
];

/// Buckets of batch sizes.
const MESSAGES: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 8_192.0];

/// How often the recorder tidies its histograms up, without which they grow.
const UPKEEP: Duration = Duration::from_secs(5);

/// Who is asked by `/livez` and `/readyz`.
pub trait Monitored: Send + Sync + 'static {
    /// Whether the process turns its loop: restarting it would help nothing while it does.
    fn is_live(&self) -> bool;

    /// Whether it can do its work, and what there is to be said about it.
    fn readiness(&self) -> (bool, Value);
}

/// A bound port, and what it serves.
pub struct HttpServer {
    listener: TcpListener,
    metrics: Option<PrometheusHandle>,
    monitored: Arc<dyn Monitored>,
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServer")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl HttpServer {
    /// Binds the port, and installs the recorder of metrics if none is there.
    ///
    /// # Errors
    /// When the port cannot be had, or is reachable from outside and nobody said it may be.
    pub async fn bind(
        options: &HttpOptions,
        monitored: Arc<dyn Monitored>,
    ) -> Result<Self, HttpError> {
        let addr = options.addr;
        if !addr.ip().is_loopback() && !options.allow_remote {
            return Err(HttpError::NotLoopback { addr });
        }
        let listen = |source| HttpError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        tracing::info!(addr = %bound, "serving /livez, /readyz and /metrics");
        Ok(Self {
            listener,
            metrics: install_recorder(),
            monitored,
        })
    }

    /// Serves until `stop`, and finishes the answers in progress.
    pub async fn run(self, stop: CancellationToken) {
        let app = router(self.monitored, self.metrics.clone());
        let served = axum::serve(self.listener, app).with_graceful_shutdown(stop.cancelled_owned());
        let upkeep = upkeep(self.metrics);
        // Dropping the upkeep loses nothing: it only tidies up.
        let ended = tokio::select! {
            ended = served => ended,
            () = upkeep => Ok(()),
        };
        if let Err(error) = ended {
            tracing::error!(%error, "the HTTP server ended");
        }
    }
}

async fn upkeep(metrics: Option<PrometheusHandle>) {
    let Some(metrics) = metrics else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}

fn router(monitored: Arc<dyn Monitored>, metrics: Option<PrometheusHandle>) -> Router {
    let render = move || async move {
        match metrics {
            Some(handle) => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], handle.render()).into_response()
            }
            None => {
                let text = "another metrics recorder is installed in this process";
                (StatusCode::NOT_FOUND, text).into_response()
            }
        }
    };
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(monitored)
}

async fn livez(State(monitored): State<Arc<dyn Monitored>>) -> impl IntoResponse {
    match monitored.is_live() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "its loop stands\n"),
    }
}

async fn readyz(State(monitored): State<Arc<dyn Monitored>>) -> impl IntoResponse {
    let (ready, answer) = monitored.readiness();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(answer))
}

/// Installs the Prometheus recorder for this process, once. `None` when the program that embeds
/// this crate has installed its own: the metrics go there then.
pub fn install_recorder() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let seconds = Matcher::Suffix("_seconds".to_owned());
        let messages = Matcher::Full(telemetry::BATCH.to_owned());
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(seconds, &SECONDS)
            .and_then(|b| b.set_buckets_for_metric(messages, &MESSAGES))
            .ok()?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        telemetry::describe();
        Some(handle)
    });
    handle.clone()
}
