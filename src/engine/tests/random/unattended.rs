//! Steps of those who hold without a session of their own.

use super::*;

impl World {
    fn hold(&mut self, lock: usize, term: Option<u64>, wait: Wait) {
        self.next_session += 1;
        let session = SessionId::new(self.next_session);
        let term = term.map(Duration::from_millis);
        let name = LockName::new(format!("lock{lock}")).unwrap();
        let request = Request {
            wait,
            ..Request::new(RequestId::new(1), Claim { name, mode: Mode::Exclusive })
        };
        self.requests.insert(session, vec![request.clone()]);
        self.unattended.push(session);
        self.terms.extend(term.map(|term| (session, term)));
        let (peer, identity, mark) = (None, Identity::default(), Mark::new(b"mine").unwrap());
        let hold = Hold { session, peer, identity, mark, term, request };
        self.handle(&Event::Hold(Box::new(hold)));
    }

    /// What was asked for unattended, some time ago.
    pub(super) fn unattended_back(&self, back: u64) -> Option<SessionId> {
        self.unattended.iter().rev().nth(usize::try_from(back).ok()?).copied()
    }

    fn prolong(&mut self, back: u64, term: Option<u64>) {
        let Some(session) = self.unattended_back(back) else { return };
        let term = term.map(Duration::from_millis);
        if self.table.unattended(session).is_some_and(|unattended| unattended.is_held) {
            self.until.insert(session, term.map(|term| self.now.after(term)));
        }
        let prolong = Prolong { session, term: Some(term), mark: None };
        self.handle(&Event::Prolong(Box::new(prolong)));
    }

    pub(super) fn drop_hold(&mut self, session: SessionId) {
        self.takes_away = true;
        self.handle(&Event::Drop { session });
        self.takes_away = false;
    }

    pub(super) fn unattended(&mut self, step: &Step) {
        match *step {
            Step::Hold { lock, term, wait } => self.hold(lock, term, wait),
            Step::Prolong { back, term } => self.prolong(back, term),
            Step::Drop { back } => {
                if let Some(session) = self.unattended_back(back) {
                    self.drop_hold(session);
                }
            }
            _ => {}
        }
    }
}
