//! Small clusters: random schedules, and every schedule up to a length.

mod judge;
mod model;
mod moves;
mod schedules;
mod stories;
mod walk;
