//! To see a cluster: the dashboards, and a Prometheus beside a lab.
//!
//! - [`board`]: a dashboard as a value, and its JSON.
//! - [`boards`]: what is on the four dashboards.
//! - [`prometheus`]: starts Debian's Prometheus beside a lab, and Grafana if it is on the machine.

pub mod board;
pub mod boards;
pub mod prometheus;
