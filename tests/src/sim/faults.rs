//! Every kind of fault, by name, and which of them are switched off.

use std::fmt;
use std::str::FromStr;

/// An enum of kinds, each with a name.
macro_rules! kinds {
    ($(#[$meta:meta])* $kind:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $kind {
            $($(#[$doc])* $name,)*
        }

        impl $kind {
            pub const ALL: &'static [$kind] = &[$($kind::$name,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $($kind::$name => $text,)*
                }
            }
        }
    };
}
pub(crate) use kinds;

kinds! {
    /// A kind of fault.
    Fault {
        // The weather, all of the time.
        Loss = "loss",
        Repeat = "repeat",
        Delay = "delay",
        /// A frame arrives with a bit flipped: its link breaks.
        Damage = "damage",
        /// Clocks run at different speeds and are apart from the start.
        Drift = "drift",
        // Clients.
        /// A client vanishes under way.
        Gone = "gone",
        Cancel = "cancel",
        /// A write is sent again after it was acknowledged.
        Late = "late",
        // Nodes.
        /// A process dies; what it had written to its files is there.
        Crash = "crash",
        /// A machine dies; what was not fsynced is gone, but for a prefix.
        Power = "power",
        /// All machines die at once.
        Blackout = "blackout",
        Shutdown = "shutdown",
        Pause = "pause",
        Step = "step",
        // Disks.
        Eio = "eio",
        Full = "full",
        SlowDisk = "slow-disk",
        Reserve = "reserve",
        /// A block does not match its checksum: the node stops, and starts again with an empty disk.
        BitFlip = "bit-flip",
        Wipe = "wipe",
        /// An old copy of the disk takes its place.
        Restore = "restore",
        // The network.
        Break = "break",
        OneWay = "one-way",
        Halves = "halves",
        Isolate = "isolate",
        /// Two groups that overlap in one node: each may be a majority.
        Bridge = "bridge",
    }
}

/// Kinds of faults that are switched off.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Mask(u64);

impl Mask {
    pub fn all() -> Self {
        Fault::ALL.iter().fold(Self::default(), |mask, fault| mask.without(*fault))
    }

    pub fn without(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u64)
    }

    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u64))
    }

    pub fn off(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u64 != 0
    }
}

impl FromStr for Mask {
    type Err = String;

    /// Names apart by commas; `all` for every one.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
        text.split(',').filter(|name| !name.is_empty()).try_fold(Self::default(), |mask, name| {
            if name == "all" {
                return Ok(Self::all());
            }
            let fault = Fault::ALL.iter().find(|fault| fault.name() == name);
            fault.map(|fault| mask.without(*fault)).ok_or_else(|| format!("{name:?} is none of all, {}", names()))
        })
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let off: Vec<_> = Fault::ALL.iter().filter(|fault| self.off(**fault)).map(|fault| fault.name()).collect();
        if off.is_empty() { write!(f, "none") } else { write!(f, "{}", off.join(",")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_reads_as_it_is_written() {
        let mask: Mask = "crash,one-way".parse().unwrap();
        assert!(mask.off(Fault::Crash) && mask.off(Fault::OneWay) && !mask.off(Fault::Power));
        assert_eq!(mask.to_string().parse(), Ok(mask));
        assert_eq!("all".parse(), Ok(Mask::all()));
        assert!("crush".parse::<Mask>().unwrap_err().contains("crash"));
    }
}
