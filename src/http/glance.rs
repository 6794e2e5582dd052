//! The latest figures, asked for once for all who want them at about the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::server::{Figures, Looker};

/// How old what is told may be.
pub(super) const FRESH: Duration = Duration::from_millis(100);
/// How long the Coordinator may take to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the Coordinator was last heard to say, and when.
#[derive(Debug)]
pub(super) struct Glance {
    /// The way to ask the Coordinator.
    pub(super) looker: Looker,
    /// The latest figures. Whoever finds them too old asks, and the others wait for that.
    figures: Mutex<Option<(Instant, Arc<Figures>)>>,
    /// When it last showed that it is there.
    pulse: Mutex<Option<Instant>>,
}

impl Glance {
    pub(super) fn new(looker: Looker) -> Self {
        Self { looker, figures: Mutex::new(None), pulse: Mutex::new(None) }
    }

    /// The figures of now, or of just before. None if the Coordinator does not answer in time, or is gone.
    pub(super) async fn figures(&self) -> Option<Arc<Figures>> {
        let ask = async {
            let mut latest = self.figures.lock().await;
            if let Some((asked, figures)) = &*latest
                && asked.elapsed() < FRESH
            {
                return Some(Arc::clone(figures));
            }
            let asked = Instant::now();
            let figures: Arc<Figures> = Arc::from(self.looker.figures().await?);
            *latest = Some((asked, Arc::clone(&figures)));
            Some(figures)
        };
        timeout(ANSWER_TIMEOUT, ask).await.ok().flatten()
    }

    /// Whether the Coordinator answers.
    pub(super) async fn is_alive(&self) -> bool {
        let ask = async {
            let mut latest = self.pulse.lock().await;
            if latest.is_some_and(|at| at.elapsed() < FRESH) {
                return Some(());
            }
            self.looker.pulse().await?;
            *latest = Some(Instant::now());
            Some(())
        };
        timeout(ANSWER_TIMEOUT, ask).await.is_ok_and(|answer| answer.is_some())
    }
}
