//! The server as a whole, without sockets: what is left of a run in the next one, and what peers that are
//! almost right can do to it.

mod fuzz;
mod journalled;
mod leased;
mod restarts;
