//! The promises of the wire: the layout of every message, and that no bytes do harm.

#[cfg(feature = "codec")]
mod codec;
mod documented;
#[cfg(feature = "codec")]
mod fuzz;
mod golden;
mod hostile;
pub(super) mod messages;
mod round_trip;
#[cfg(feature = "codec")]
mod usual;
