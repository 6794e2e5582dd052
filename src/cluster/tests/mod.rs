//! Small clusters: random schedules, and every schedule up to a length.

mod judge;
mod model;
mod schedules;
mod stories;
mod walk;
