//! The admin face: HTTP on loopback, for probes, for people, for Prometheus.

use super::plane::Exchange;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use quorate_ring::wire::client::NodeStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// For so long after its start a node is not ready while a peer has not answered it: it may soon.
const SETTLING: Duration = Duration::from_secs(3);
/// What Prometheus is told that it gets.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, exchange: Arc<Exchange>) {
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(exchange);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin address is not served any more");
    }
}

/// Whether to send requests here: 200, or 503 and why not.
async fn readyz(State(exchange): State<Arc<Exchange>>) -> Response {
    let now = exchange.clock.mono();
    match exchange.router.status(now).await {
        Some(status) => match unready(&status, now) {
            None => "serving\n".into_response(),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
        },
        None => silent(),
    }
}

/// Why a node should not be asked yet, or any more.
fn unready(status: &NodeStatus, since_start: Duration) -> Option<String> {
    if status.state != "serving" {
        return Some(status.state.clone());
    }
    let missing = status.peers.iter().find(|peer| peer.state != "up")?;
    (since_start < SETTLING).then(|| format!("starting: node {} has not answered yet", missing.node))
}

async fn status(State(exchange): State<Arc<Exchange>>) -> Response {
    match exchange.router.status(exchange.clock.mono()).await {
        Some(status) => Json(status).into_response(),
        None => silent(),
    }
}

async fn metrics(State(exchange): State<Arc<Exchange>>) -> Response {
    if let Some(status) = exchange.router.status(exchange.clock.mono()).await {
        exchange.metrics.status(&status);
    }
    for (class, bytes, oldest) in exchange.router.waiting() {
        exchange.metrics.inbox(class.name(), bytes, oldest);
    }
    ([(CONTENT_TYPE, METRICS_TYPE)], exchange.metrics.render()).into_response()
}

fn silent() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "a shard does not answer\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_ring::wire::client::PeerStatus;

    #[test]
    fn ready_is_who_serves_and_has_heard_of_its_peers() {
        let peer = |state: &str| PeerStatus { node: 2, state: state.to_string(), ..PeerStatus::default() };
        let status = |state: &str, peers| NodeStatus { state: state.to_string(), peers, ..NodeStatus::default() };
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(unready(&status("serving", vec![peer("up")]), early), None);
        assert_eq!(unready(&status("serving", vec![peer("down")]), late), None, "the others can be asked without it");
        assert!(unready(&status("serving", vec![peer("down")]), early).unwrap().contains("node 2"));
        assert_eq!(unready(&status("draining", vec![]), late).unwrap(), "draining");
        assert_eq!(unready(&status("rebuilding", vec![]), late).unwrap(), "rebuilding");
    }
}
