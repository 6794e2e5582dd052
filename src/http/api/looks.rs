//! Looks over HTTP: who asks the same waits together, and one of them looks for all.
//!
//! A look takes its turn at the pace of all. Whoever comes meanwhile and asks the same, with the same proof, waits
//! for its answer instead of a turn of its own. Nobody joins a look that has begun: so an answer never is older than
//! the question, and a lock that was just released is not told as held.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch::{self, Receiver, Sender};

use super::pace::Pace;

/// Those who wait for their turn, by what they ask.
#[derive(Debug)]
pub(super) struct Looks<Question, Answer> {
    /// When the next look may be, of all who look over HTTP.
    pace: Pace,
    /// What is asked by those who wait for their turn, each once; and where the answer will be.
    waiting: Mutex<Vec<(Question, Receiver<Option<Answer>>)>>,
}

/// What comes of waiting.
#[derive(Debug)]
pub(super) enum Turn<Answer> {
    /// It is one's turn to look, and to tell those who wait what came of it.
    Look(Telling<Answer>),
    /// Somebody else has looked.
    Told(Answer),
}

/// Where those hear of an answer who wait for it. They look for themselves if it is dropped without.
#[derive(Debug)]
pub(super) struct Telling<Answer>(Sender<Option<Answer>>);

impl<Answer: Clone> Telling<Answer> {
    /// Tells them.
    pub(super) fn tell(self, answer: &Answer) {
        if self.0.receiver_count() > 0 {
            self.0.send_replace(Some(answer.clone()));
        }
    }
}

impl<Question: Clone + PartialEq, Answer: Clone> Looks<Question, Answer> {
    pub(super) fn new() -> Self {
        Self { pace: Pace::new(), waiting: Mutex::default() }
    }

    /// Waits for one's turn to ask something, or for the answer to somebody who asks the same and came before.
    pub(super) async fn turn(&self, question: &Question) -> Turn<Answer> {
        loop {
            let (mut answer, telling) = self.enter(question);
            if let Some(telling) = telling {
                let _entry = Entry { looks: self, question };
                self.pace.turn().await;
                return Turn::Look(telling);
            }
            // That one may have gone, or have been refused what this one is not.
            if let Ok(told) = answer.wait_for(Option::is_some).await
                && let Some(told) = told.clone()
            {
                return Turn::Told(told);
            }
        }
    }

    /// Where the answer to a question will be; and whether it is one's own to find, as nobody waits with it yet.
    fn enter(&self, question: &Question) -> (Receiver<Option<Answer>>, Option<Telling<Answer>>) {
        let mut waiting = self.waiting();
        if let Some((_, answer)) = waiting.iter().find(|(asked, _)| asked == question) {
            return (answer.clone(), None);
        }
        let (sender, answer) = watch::channel(None);
        waiting.push((question.clone(), answer.clone()));
        (answer, Some(Telling(sender)))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(Question, Receiver<Option<Answer>>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that can be joined until this is dropped.
struct Entry<'a, Question: PartialEq, Answer> {
    /// Where it stands.
    looks: &'a Looks<Question, Answer>,
    /// What is asked.
    question: &'a Question,
}

impl<Question: PartialEq, Answer> Drop for Entry<'_, Question, Answer> {
    fn drop(&mut self) {
        let waiting = &self.looks.waiting;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(asked, _)| asked != self.question);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::task::{JoinSet, yield_now};
    use tokio::time::{Instant, sleep};

    use super::super::pace::{LOOK_PAUSE, LOOKS_BURST};
    use super::*;

    /// Looks whose answers are their numbers, each of which takes a while.
    #[derive(Clone)]
    struct Watched(Arc<Looks<&'static str, u64>>, Arc<AtomicU64>);

    const TAKES: Duration = Duration::from_millis(1);

    impl Watched {
        fn new() -> Self {
            Self(Arc::new(Looks::new()), Arc::default())
        }

        async fn ask(&self, question: &'static str) -> u64 {
            match self.0.turn(&question).await {
                Turn::Told(number) => number,
                Turn::Look(telling) => {
                    let number = self.1.fetch_add(1, Ordering::Relaxed);
                    sleep(TAKES).await;
                    telling.tell(&number);
                    number
                }
            }
        }

        /// Until the next has to wait for its turn.
        async fn use_up(&self) {
            for _ in 0..LOOKS_BURST {
                self.ask("others").await;
            }
        }

        fn count(&self) -> u64 {
            self.1.load(Ordering::Relaxed)
        }
    }

    /// Rule B1.
    #[tokio::test(start_paused = true)]
    async fn fifty_that_ask_the_same_are_one_look_and_wait_no_longer_than_one() {
        let looks = Watched::new();
        looks.use_up().await;
        let (began, before) = (Instant::now(), looks.count());
        let mut all = JoinSet::new();
        for number in 0..50 {
            let looks = looks.clone();
            let question = if number % 2 == 0 { "locks" } else { "sessions" };
            all.spawn(async move { looks.ask(question).await });
        }
        all.join_all().await;
        assert_eq!(looks.count() - before, 2, "one for each question");
        assert!(began.elapsed() <= LOOK_PAUSE * 2 + TAKES, "{:?}", began.elapsed());
        assert!(looks.0.waiting().is_empty(), "nothing is left of them");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_others_look_is_told_nothing_that_was_seen_before() {
        let looks = Watched::new();
        let first = tokio::spawn({
            let looks = looks.clone();
            async move { looks.ask("locks").await }
        });
        while looks.count() == 0 {
            yield_now().await;
        }
        assert_eq!(looks.ask("locks").await, 1, "a look of its own, at once");
        assert_eq!(first.await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_one_that_goes_or_is_refused_looks_itself() {
        let looks = Watched::new();
        looks.use_up().await;
        let gone = tokio::spawn({
            let looks = looks.clone();
            async move { looks.ask("locks").await }
        });
        yield_now().await;
        let behind = tokio::spawn({
            let looks = looks.clone();
            async move { looks.ask("locks").await }
        });
        yield_now().await;
        let before = looks.count();
        gone.abort();
        assert_eq!(behind.await.unwrap(), before, "it did not wait for ever");

        looks.use_up().await;
        let refused = tokio::spawn({
            let looks = looks.clone();
            async move { drop(looks.0.turn(&"locks").await) }
        });
        yield_now().await;
        let before = looks.count();
        assert_eq!(looks.ask("locks").await, before, "what another was refused is no answer");
        refused.await.unwrap();
    }
}
