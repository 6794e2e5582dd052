//! What is asked besides locks: questions, watches, a subscription; of a session or without one.
//!
//! A look changes nothing, so it is idempotent. One whose answer was lost with a connection is
//! asked again over the next. What lasts (watches, a subscription) is asked for anew as long as
//! somebody looks. Taking a lock away is the exception: whether a lost answer was a yes is not
//! known, and that is said. A question waits for a server like a request that would not wait for a
//! lock: until an attempt to connect has failed.
//!
//! Looks and requests are answered by their ids in the same messages, so a look has an id that no request
//! ever gets.

use std::collections::BTreeMap;

use crate::types::{FencingToken, Generation, Secret, SessionId};
use crate::wire::{ClientMessage, Query, ServerMessage};

use super::{Core, Effect, Phase, Refusal, Rejection};

/// The id of the first look. Requests count from 1, and never come so far.
const LOOK_FIRST: u64 = 1 << 63;
/// More looks than this are not kept: nobody waits for so many answers.
const LOOKS_MAX: usize = 4_096;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Locks: it has a session, and may look, too.
    Session,
    /// Nothing but looks: it has no session, holds nothing and keeps nothing alive.
    Look,
    /// To end a session of another process.
    End {
        /// The session.
        session: SessionId,
        /// What proves that it is ours.
        secret: Secret,
        /// The generation of its last connection.
        generation: Generation,
    },
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Something, once.
    At(Query),
    /// Nothing: a grant is to be taken away.
    Revoke {
        /// The lock.
        name: String,
        /// The token of the grant.
        token: FencingToken,
        /// Why, for whoever reads the audit log.
        reason: Option<String>,
    },
    /// A lock, now and whenever its holders change.
    Watch {
        /// The lock.
        name: String,
    },
    /// What happens to requests from now on.
    Listen {
        /// Only to those that claim this lock; none: to all.
        name: Option<String>,
    },
}

impl Look {
    /// How it is said.
    fn message(&self, query_id: u64) -> ClientMessage {
        match self.clone() {
            Self::At(query) => ClientMessage::Inspect { query_id, query },
            Self::Revoke { name, token, reason: None } => {
                ClientMessage::Revoke { query_id, name, token }
            }
            Self::Revoke { name, token, reason: Some(reason) } => {
                ClientMessage::RevokeFor { query_id, name, token, reason }
            }
            Self::Watch { name } => ClientMessage::Watch { query_id, name },
            Self::Listen { name } => ClientMessage::Subscribe { query_id, name },
        }
    }

    /// Whether it goes on after its answer.
    fn lasts(&self) -> bool {
        match self {
            Self::Watch { .. } | Self::Listen { .. } => true,
            Self::At(_) | Self::Revoke { .. } => false,
        }
    }
}

/// A look that is not over.
#[derive(Debug)]
struct Asked {
    /// The question.
    look: Look,
    /// Over which connection it was said last, if it was.
    said: Option<u64>,
    /// Whether there was an answer: then it outlives connections.
    answered: bool,
}

/// All looks that are not over.
#[derive(Debug)]
pub(super) struct Looks {
    /// By their ids. Ordered, so that they are asked again in their order.
    asked: BTreeMap<u64, Asked>,
    /// The id of the next one: each greater than all before.
    next: u64,
    /// Whether there ever was a subscription: what it brings may come after it was given up.
    listened: bool,
}

impl Default for Looks {
    fn default() -> Self {
        Self { asked: BTreeMap::new(), next: LOOK_FIRST, listened: false }
    }
}

impl Core {
    /// The application wants to see something. Told by [`Effect::Seen`], of what lasts again and again,
    /// until [`Effect::Unseen`].
    pub(crate) fn look(&mut self, look: Look) -> u64 {
        let id = self.looks.next;
        self.looks.next += 1;
        #[cfg(test)]
        self.note_message(format_args!("look {id}"), &look.message(id));
        let refusal = match &self.phase {
            Phase::Ended(_) => Some(Refusal::Ended),
            _ if self.looks.asked.len() >= LOOKS_MAX => Some(Refusal::Away),
            Phase::Open(_) => None,
            Phase::Greeting(_) | Phase::Away(_) => self.unreachable.then_some(Refusal::Away),
        };
        if let Some(refusal) = refusal {
            self.effects.push(Effect::Unseen { look: id, refusal });
            return id;
        }
        let said = self.may_send().then(|| {
            self.messages.push(look.message(id));
            self.current
        });
        self.looks.listened |= matches!(look, Look::Listen { .. });
        self.looks.asked.insert(id, Asked { look, said, answered: false });
        id
    }

    /// Somebody else wants to see what `look` lasts to show: it is shown as it is now.
    pub(crate) fn look_again(&mut self, look: u64) {
        #[cfg(test)]
        self.note(format_args!("look_again {look}"));
        if self.may_send()
            && let Some(asked) = self.looks.asked.get(&look)
        {
            self.messages.push(asked.look.message(look));
        }
    }

    /// Nobody wants to see it any more. There is nothing to tell afterwards.
    pub(crate) fn look_away(&mut self, look: u64) {
        #[cfg(test)]
        self.note(format_args!("look_away {look}"));
        let asked = self.looks.asked.remove(&look);
        if self.may_send()
            && let Some(Asked { look: Look::Watch { name }, .. }) = asked
        {
            self.messages.push(ClientMessage::Unwatch { name });
        }
    }

    /// An answer to a look.
    pub(super) fn seen(&mut self, look: u64, answer: ServerMessage) -> Result<(), String> {
        if !(LOOK_FIRST..self.looks.next).contains(&look) {
            return Err(format!("an answer to query {look}, which was never asked"));
        }
        // To one that was given up, if there is none.
        let Some(asked) = self.looks.asked.get_mut(&look) else { return Ok(()) };
        asked.answered = true;
        if !asked.look.lasts() {
            self.looks.asked.remove(&look);
        }
        self.effects.push(Effect::Seen { look, answer: Box::new(answer) });
        Ok(())
    }

    /// Something that a subscription brings.
    pub(super) fn overheard(&mut self, news: &ServerMessage) -> Result<(), String> {
        if !self.looks.listened {
            return Err("events without a subscription".to_owned());
        }
        let listens = |asked: &Asked| matches!(asked.look, Look::Listen { .. });
        let mut listening = self.looks.asked.iter().filter(|(_, asked)| listens(asked));
        // Of several, the latest has taken the place of the others.
        if let Some((&look, _)) = listening.next_back() {
            self.effects.push(Effect::Seen { look, answer: Box::new(news.clone()) });
        }
        Ok(())
    }

    /// Whether `id` is that of a look, and not that of a request.
    pub(super) fn is_look(id: u64) -> bool {
        id >= LOOK_FIRST
    }

    /// The server does not want it to be seen.
    pub(super) fn look_rejected(&mut self, look: u64, no: Rejection) -> Result<(), String> {
        if look >= self.looks.next {
            return Err(format!("query {look} rejected, which was never asked"));
        }
        if self.looks.asked.remove(&look).is_some() {
            self.effects.push(Effect::Unseen { look, refusal: Refusal::Rejected(no) });
        }
        Ok(())
    }

    /// The connection ended, or is given up: what happens until there is another is not heard of.
    pub(super) fn interrupt_looks(&mut self) {
        for (&look, asked) in &self.looks.asked {
            if asked.answered && matches!(asked.look, Look::Listen { .. }) {
                self.effects.push(Effect::Interrupted { look });
            }
        }
    }

    /// Who asks waits no longer for a server that cannot be reached.
    pub(super) fn refuse_looks(&mut self) {
        let Self { looks, effects, .. } = self;
        looks.asked.retain(|&look, asked| {
            let lasts = asked.answered && asked.look.lasts();
            if !lasts {
                effects.push(Effect::Unseen { look, refusal: Refusal::Away });
            }
            lasts
        });
    }

    /// Asks over this connection what was asked over none, or over another.
    pub(super) fn look_anew(&mut self) {
        let Self { looks, effects, messages, .. } = self;
        let current = Some(self.current);
        looks.asked.retain(|&look, asked| {
            let is_in_doubt = asked.said.is_some() && matches!(asked.look, Look::Revoke { .. });
            if asked.said == current {
                return true;
            }
            if is_in_doubt {
                effects.push(Effect::Unseen { look, refusal: Refusal::Forgotten });
                return false;
            }
            messages.push(asked.look.message(look));
            asked.said = current;
            true
        });
    }

    /// Nothing is seen any more.
    pub(super) fn end_looks(&mut self) {
        for look in std::mem::take(&mut self.looks.asked).into_keys() {
            self.effects.push(Effect::Unseen { look, refusal: Refusal::Ended });
        }
    }
}
