mod commands;
mod fake;
mod fuzz;
mod replies;
mod requests;
mod scripts;
mod talk;
