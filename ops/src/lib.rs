//! A cluster of real processes on one machine, for trying Quorate out and for testing it.
//!
//! - [`folder`]: where things lie in the folder of a lab, and the record of it that is kept there.
//! - [`certs`]: the certificates of a cluster: a root, an intermediate for nodes, another for clients.
//! - [`plan`]: the files that a cluster is made of, before any process runs.
//! - [`process`]: one process of the operating system, told apart from others that later get its number.
//! - [`probe`]: what a node's admin address says.
//! - [`cluster`]: start, stop, kill, pause, wipe, cut: what is done to the nodes and their links.
//! - [`relay`]: where links between nodes are cut and slowed down.
//! - [`disk`]: small disks of the nodes' own, that can be filled.
//! - [`show`]: tables and advice for people.
//! - [`observe`]: dashboards, and a Prometheus beside a lab.
//! - [`idle`]: what nodes cost while nobody asks anything of them.
//! - [`sequence`]: numbers that follow from a seed.
//! - [`verify`]: every owner read directly, and compared byte for byte.
//! - [`stage`]: a cluster for a run of its own, and a client of it.
//! - [`trial`]: faults under load, and what must hold then.
//! - [`story`]: what happens in a split brain, told and shown.
//! - [`crash`]: rounds of killing everything in the middle of a load, and checking what was acknowledged.
//!
//! Not inside: anything that a node or a client does. Nodes are the real program, started as anyone would start it.

pub mod certs;
pub mod cluster;
pub mod crash;
pub mod disk;
pub mod folder;
pub mod idle;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod process;
pub mod relay;
pub mod sequence;
pub mod show;
pub mod stage;
pub mod story;
pub mod trial;
pub mod verify;
