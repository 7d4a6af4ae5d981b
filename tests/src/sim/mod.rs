//! The simulated world: real kernels, simulated everything else.
//!
//! - [`options`]: what a seed decides. [`run`]: a run from beginning to end.
//! - [`world`]: virtual time, and what happens in it. `heap`, `rng`, `clock`: its tools.
//! - [`node`], [`disk`], [`drain`](self): nodes made of `quorate_node::kernel::Kernel`, and how a drain is committed.
//! - [`network`], `transport`, `routing`: encoded frames, under way between nodes.
//! - [`load`], `clients`, [`keys`]: the work. [`faults`], `nemesis`: what goes wrong.
//! - [`trace`], `tale`, [`rare`]: a hash, a story, figures.
//!
//! Not inside: any rule of the store. The world calls the kernel's entry, and looks at replicas and disks; what is
//! right is for [`crate::checks`] to say.

mod clients;
pub mod clock;
pub mod disk;
mod drain;
pub mod faults;
pub mod heap;
pub mod keys;
pub mod load;
mod nemesis;
pub mod network;
pub mod node;
pub mod options;
pub mod rare;
pub mod rng;
mod routing;
pub mod run;
mod tale;
pub mod trace;
mod transport;
pub mod world;

pub use options::Asked;
pub use run::{Report, Telling, run};
