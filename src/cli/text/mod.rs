//! Texts: what happened, who, what next; and the only place that prints.

pub(super) mod answer;
pub(super) mod aside;
pub(super) mod errors;
pub(super) mod outlook;
pub(super) mod output;
pub(super) mod table;
pub(super) mod twins;
pub(super) mod visible;
pub(super) mod words;
