//! Locks in a map, for commands to be tested against.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::redis::{
    Change, Flushing, Holds, Look, Ours, Refusal, Reply, Scripts, Step, Talk, Words, perform,
};
use crate::types::{FencingToken, LockName, Mark};

/// The moment at which everything happens, since 1970.
pub(super) const WALL: Duration = Duration::from_secs(1_800_000_000);

/// Locks, and a client that talks about them.
pub(super) struct Fake {
    pub(super) keys: BTreeMap<LockName, Look>,
    /// Those for which somebody is next in line.
    pub(super) kept: BTreeSet<LockName>,
    /// How often something was freed.
    pub(super) freed: usize,
    token: u64,
    talk: Talk,
}

pub(super) fn name(key: &str) -> LockName {
    LockName::new(key).unwrap()
}

impl Fake {
    pub(super) fn new() -> Self {
        let mut talk = Talk::unproven(7, Scripts::default().into(), Flushing::Refused);
        talk.trust();
        Self { keys: BTreeMap::new(), kept: BTreeSet::new(), freed: 0, token: 0, talk }
    }

    /// A native client holds a lock.
    pub(super) fn hold_natively(&mut self, key: &str) {
        let left = Some(Duration::from_secs(10));
        let look = Look::Theirs { identity: "ann".into(), left, token: FencingToken::new(99) };
        self.keys.insert(name(key), look);
    }

    /// Says a line, whose words are apart by spaces, and gives what is answered.
    pub(super) fn say(&mut self, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        self.say_words(&words)
    }

    pub(super) fn say_words(&mut self, words: &[&str]) -> Reply {
        let words = Words::of(words.iter().map(|word| word.as_bytes()));
        let said = self.talk.hear(&words, WALL);
        self.step(said.step)
    }

    fn step(&mut self, step: Step) -> Reply {
        match step {
            Step::Say(reply) | Step::Forget(reply) | Step::Leave(reply) => reply,
            Step::Do(deed) => perform(&deed, self),
            Step::Together(steps) => {
                Reply::Array(steps.into_iter().map(|step| self.step(step)).collect())
            }
            Step::Enter { then, .. } => then,
        }
    }

    pub(super) fn script(&mut self, text: &str, keys: &[&str], arguments: &[&str]) -> Reply {
        let count = keys.len().to_string();
        self.say_words(&[&["EVAL", text, &count], keys, arguments].concat())
    }

    fn ours(&mut self, key: &LockName) -> &mut Ours {
        match self.keys.get_mut(key) {
            Some(Look::Ours(ours)) => ours,
            other => panic!("{key} is not set by this dialect: {other:?}"),
        }
    }
}

impl Holds for Fake {
    fn look(&mut self, key: &LockName) -> Result<Look, Refusal> {
        Ok(self.keys.get(key).cloned().unwrap_or(Look::Free))
    }

    fn take(
        &mut self,
        key: &LockName,
        mark: &Mark,
        term: Option<Duration>,
    ) -> Result<bool, Refusal> {
        assert!(!self.keys.contains_key(key), "{key} was not free");
        assert!(term != Some(Duration::ZERO), "a hold that is over before it begins");
        if self.kept.contains(key) {
            return Ok(false);
        }
        self.token += 1;
        let token = FencingToken::new(self.token);
        self.keys.insert(key.clone(), Look::Ours(Ours { mark: mark.clone(), left: term, token }));
        Ok(true)
    }

    fn change(&mut self, key: &LockName, change: Change<'_>) -> Result<(), Refusal> {
        let ours = self.ours(key);
        if let Some(term) = change.term {
            assert!(term != Some(Duration::ZERO));
            ours.left = term;
        }
        if let Some(mark) = change.mark {
            ours.mark = mark.clone();
        }
        Ok(())
    }

    fn free(&mut self, key: &LockName) -> Result<(), Refusal> {
        let _ = self.ours(key);
        self.keys.remove(key);
        self.freed += 1;
        Ok(())
    }

    fn may_free(&mut self, _: &LockName) -> Result<(), Refusal> {
        Ok(())
    }

    fn wall(&self) -> Duration {
        WALL
    }

    fn size(&self) -> usize {
        self.keys.len()
    }
}
