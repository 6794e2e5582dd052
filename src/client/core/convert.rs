//! Conversion of a hold: the same locks in other modes.
//!
//! Two requests take part, the held one and the one that *converts* it. Until the second is
//! granted, nothing has changed. From then on it alone is held, and the first is over without a
//! word. The answer to the second decides about both. As long as it is unknown, the client must not
//! act as if it were known. It never gives up the second alone while there is no connection. The
//! second may have been granted. Then the server would free the locks as soon as it heard of that,
//! while the first were still believed in here. A caller that waits for such an answer waits for
//! the next connection, or until the first is lost. That is at the end of the lease at the latest.
//!
//! The fate of the first while the second waits:
//!
//! - it is lost, for any reason: then there is nothing to convert, and the second is given up;
//! - it is given up together with the second, by its owner: both are told to the server;
//! - the second was granted, and the news was lost with a connection. The first is then over there, and
//!   the server may say so (`Released` to its reclaim, `Lost` to the account). The answer to the
//!   second, which is repeated before the account, explains it.

use crate::types::{LostReason, RequestId};

use super::{Core, Effect, Refusal, Request, State};

impl Core {
    /// Whether what a request would convert is there, and not being converted already; true for one
    /// that converts nothing.
    pub(super) fn can_convert(&self, request: &Request) -> bool {
        request
            .ask
            .converts
            .is_none_or(|converted| !self.is_being_converted(converted) && self.is_held(converted))
    }

    /// Whether a conversion of the request waits for its answer.
    pub(super) fn is_being_converted(&self, number: RequestId) -> bool {
        self.conversions.contains_key(&number)
    }

    fn is_held(&self, number: RequestId) -> bool {
        self.requests.get(&number).is_some_and(|known| matches!(known.state, State::Held { .. }))
    }

    /// A request is granted: what it converts, if it does, is over.
    pub(super) fn replace_converted(&mut self, number: RequestId) {
        let Some(converted) = self.requests.get(&number).and_then(|known| known.ask.converts)
        else {
            return;
        };
        self.conversions.remove(&converted);
        // What is on its way back is not held, and its release will be answered.
        let Some(State::Held { doubted, .. }) = self.requests.get(&converted).map(|r| &r.state)
        else {
            return;
        };
        let (request, was_doubted) = (converted, doubted.is_some());
        if was_doubted {
            self.effects.push(Effect::Confirmed { request });
        }
        self.remove(converted);
        self.effects.push(Effect::Replaced { request });
    }

    /// A hold is lost: what was to convert it has nothing to convert any more.
    pub(super) fn give_up_conversion(&mut self, converted: RequestId, reason: LostReason) {
        let Some(number) = self.conversions.remove(&converted) else { return };
        let Some(State::Waiting | State::Unconfirmed(_)) =
            self.requests.get(&number).map(|known| &known.state)
        else {
            return;
        };
        let (request, refusal) = (number, Refusal::Lost(reason));
        self.effects.push(Effect::Refused { request, refusal });
        // It may have been granted meanwhile, and then it holds the locks.
        self.give_up(request);
    }

    /// A conversion was granted and lost, and we heard only of the loss: what it converted is lost with
    /// it.
    pub(super) fn lose_converted(&mut self, converted: RequestId, reason: LostReason) {
        if self.is_held(converted) {
            self.lose(converted, reason);
        }
    }

    /// A request is over; if it was to convert another, that can be converted by others again.
    pub(super) fn forget_conversion(&mut self, number: RequestId, request: &Request) {
        if let Some(converted) = request.ask.converts
            && self.conversions.get(&converted) == Some(&number)
        {
            self.conversions.remove(&converted);
        }
    }
}
