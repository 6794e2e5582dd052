//! Losses by the passing of time, without a message.

use crate::types::{LostReason, RequestId, Timestamp};
use crate::wire::ClientMessage;

use super::{Core, Effect, Refusal, Request, State};

impl Core {
    /// Ends every hold that is not believed in any more. First thing wherever time is told: a
    /// message that comes too late must not find anything to prolong.
    pub(super) fn lapse_if_due(&mut self, now: Timestamp) {
        while let Some(&(until, number)) = self.doubts.first()
            && until <= now
        {
            self.doubts.pop_first();
            self.lapse(number);
        }
        let Some(lease) = &self.lease else { return };
        if self.lapsed || now < lease.believed_until() {
            return;
        }
        self.lapsed = true;
        let held = |request: &Request| matches!(request.state, State::Held { .. });
        let holds: Vec<RequestId> =
            self.requests.iter().filter(|(_, r)| held(r)).map(|(number, _)| *number).collect();
        for number in holds {
            self.lapse(number);
        }
        if !self.may_send() {
            self.refuse_releases();
        }
    }

    /// One hold is believed in no longer.
    fn lapse(&mut self, number: RequestId) {
        let Some(request) = self.requests.get(&number) else { return };
        let State::Held { grant, doubted } = request.state else { return };
        let (token, reason) = (grant.token, LostReason::Expired);
        self.effects.push(Effect::Lost { request: number, reason });
        if self.may_send() {
            // If the server still keeps the session, the lock must not stay with nobody.
            let (asked, lost, reclaimed) = (false, Some(reason), doubted.is_some());
            let repeated = false;
            self.set_state(number, State::Releasing { token, asked, lost, reclaimed, repeated });
            self.messages.push(ClientMessage::Release { request: number, token });
        } else {
            // The account that is given over the next connection does not list it.
            self.remove(number);
        }
        self.give_up_conversion(number, reason);
    }

    /// The lease is over and there is no connection: nobody needs to wait to hear that what was
    /// given back is free.
    pub(super) fn refuse_releases(&mut self) {
        let releasing = |request: &Request| matches!(request.state, State::Releasing { .. });
        let released: Vec<RequestId> =
            self.requests.iter().filter(|(_, r)| releasing(r)).map(|(n, _)| *n).collect();
        for number in released {
            if let Some(Request { state: State::Releasing { asked: true, lost, .. }, .. }) =
                self.remove(number)
            {
                let outcome = Err(lost.map_or(Refusal::Away, Refusal::Lost));
                self.effects.push(Effect::Released { request: number, outcome });
            }
        }
    }

    /// While there is no connection, requests stop waiting by our own clock; but for those that convert
    /// a hold, which are not in the list.
    pub(super) fn stop_waiting_if_due(&mut self, now: Timestamp) {
        if self.is_open() || !self.began {
            return;
        }
        while let Some(&(at, number)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            let waits = |r: &Request| matches!(r.state, State::Waiting | State::Unconfirmed(_));
            if self.requests.get(&number).is_some_and(waits) {
                self.refuse(number, Refusal::Away);
            }
        }
    }
}
