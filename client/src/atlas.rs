//! The newest topology that was heard of, and its placement.

use crate::failure::LayoutError;
use quorate_ring::placement::Layout;
use quorate_ring::topology::Topology;
use quorate_ring::wire::client::HelloReply;
use std::sync::{Arc, RwLock};

#[derive(Default)]
pub(crate) struct Atlas(RwLock<Option<Arc<Layout>>>);

impl Atlas {
    /// None until the first node has greeted.
    pub fn layout(&self) -> Option<Arc<Layout>> {
        self.0.read().expect("nothing panics while it holds this lock").clone()
    }

    /// Takes over the topology of a greeting if it is newer than the one at hand.
    pub fn offer(&self, greeting: &HelloReply) -> Result<(), LayoutError> {
        if self.layout().is_some_and(|have| have.epoch() >= greeting.epoch) {
            return Ok(());
        }
        let layout = Arc::new(Layout::new(Arc::new(Topology::parse(&greeting.topology)?))?);
        let mut current = self.0.write().expect("nothing panics while it holds this lock");
        if current.as_ref().is_none_or(|have| have.epoch() < layout.epoch()) {
            *current = Some(layout);
        }
        Ok(())
    }
}
