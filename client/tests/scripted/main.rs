//! The client library against scripted nodes: real QUIC and TLS, answers as each story wants them.

mod fake;
mod listing;
mod outcomes;
