//! The ear: a connection of its own that listens to what happens, while events are shown and no longer.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Heard, attempt};
use crate::cli::settings::Settings;
use crate::cli::show::ping::connect;

/// Between two beginnings at least: a coordinator that is away, or hears too many, is not stormed.
const PAUSE: Duration = Duration::from_secs(2);

/// Who listens, if somebody does.
#[derive(Debug, Default)]
pub(super) struct Ear {
    /// What listens; it may have ended meanwhile.
    task: Option<AbortOnDrop>,
    /// When it may begin again, once it has ended.
    not_before: Option<Instant>,
}

impl Ear {
    /// Listens, from now on or as before.
    pub(super) fn open(&mut self, settings: &Settings, tell: &mpsc::Sender<Heard>, now: Instant) {
        let is_open = self.task.as_ref().is_some_and(|task| !task.0.is_finished());
        if is_open || self.not_before.is_some_and(|then| now < then) {
            return;
        }
        let listening = listen(settings.clone(), tell.clone());
        self.task = Some(AbortOnDrop(tokio::spawn(listening)));
        self.not_before = Some(now + PAUSE);
    }

    /// Listens no more; whether it did.
    pub(super) fn close(&mut self) -> bool {
        self.not_before = None;
        self.task.take().is_some()
    }
}

/// A task that ends when nobody wants it any more.
#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells what happens, and last of all why nothing more is heard.
async fn listen(settings: Settings, tell: mpsc::Sender<Heard>) {
    let failed = |error| attempt(&settings).failed(&error).in_one_line();
    let subscribed = async {
        let observer = connect(&settings).await.map_err(|failure| failure.in_one_line())?;
        observer.events(None).await.map_err(failed)
    };
    let mut events = match subscribed.await {
        Ok(events) => events,
        Err(why) => return drop(tell.send(Heard::Event(Box::new(Err(why)))).await),
    };
    if tell.send(Heard::Listening).await.is_err() {
        return;
    }
    while let Some(event) = events.next().await {
        let heard = Heard::Event(Box::new(event.map_err(failed)));
        if tell.send(heard).await.is_err() {
            return;
        }
    }
}
