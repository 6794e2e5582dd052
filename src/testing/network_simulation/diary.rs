//! The diary: the clients' actions and answers, recorded for the history checker. It also has facts
//! that the checker cannot know: the clients' leases, by which a loss is just or not, and the
//! resources that locks protect.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::network::is_stranger;
use super::places::{Grant, Places};
use super::process::SkewedClock;
use super::trace::Trace;
use crate::FenceGuard;
use crate::client::LockGuard;
use crate::testing::fuzz::Random;
use crate::testing::history::{Entry, Log, RequestName, Wanted, What};
use crate::types::{FencingToken, LostReason};

/// A request that is not over.
struct Open {
    /// By which clock its client counts.
    clock: SkewedClock,
    /// Until when it is believed in, unless something happens before; none before it is granted, and
    /// after its belief ended.
    believed_until: Option<Instant>,
}

/// What all write into.
pub(super) struct Book {
    /// For the checker.
    log: RefCell<Log>,
    /// Requests that are not over.
    open: RefCell<BTreeMap<RequestName, Open>>,
    /// Who came before whom.
    pub(super) places: RefCell<Places>,
    /// What the locks protect: each refuses old tokens.
    fences: RefCell<BTreeMap<Rc<str>, FenceGuard>>,
    /// What could not be, beside what the checker finds.
    complaints: RefCell<Vec<String>>,
    /// How often what happened.
    counts: RefCell<BTreeMap<&'static str, u64>>,
    /// How often a coordinator began with nothing of what the one before had.
    forgotten: Cell<u64>,
    /// When the run began.
    origin: Instant,
    /// Whether the disk of the coordinator has hung. A Welcome that waits for it may come when its lease is over,
    /// for nothing is read before it is said.
    has_hung: Cell<bool>,
    /// Whether clients are to come to an end with what they began.
    is_over: Cell<bool>,
    /// Where everything is written down once more.
    trace: Trace,
}

impl Book {
    pub(super) fn new(trace: Trace) -> Self {
        Self {
            log: RefCell::default(),
            open: RefCell::default(),
            places: RefCell::default(),
            fences: RefCell::default(),
            complaints: RefCell::default(),
            counts: RefCell::default(),
            forgotten: Cell::new(0),
            origin: Instant::now(),
            has_hung: Cell::new(false),
            is_over: Cell::new(false),
            trace,
        }
    }

    /// Counts something.
    pub(super) fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    /// Something could not be.
    pub(super) fn complain(&self, what: String) {
        self.trace.say(format_args!("VIOLATION: {what}"));
        self.complaints.borrow_mut().push(what);
    }

    /// The disk of the coordinator hangs.
    pub(super) fn hangs(&self) {
        self.has_hung.set(true);
    }

    /// Whether it has hung.
    pub(super) fn has_hung(&self) -> bool {
        self.has_hung.get()
    }

    /// Clients are to come to an end.
    pub(super) fn close(&self) {
        self.is_over.set(true);
    }

    /// Whether they are.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// The requests of `client` have no end, and need none: it died.
    pub(super) fn bury(&self, client: u64) {
        let first = RequestName { client, number: 0 };
        let last = RequestName { client, number: u64::MAX };
        let dead: Vec<_> = {
            let open = self.open.borrow();
            open.range(first..=last).map(|(request, open)| (*request, open.clock)).collect()
        };
        for (request, clock) in dead {
            self.end_belief(request);
            self.note(&clock, Instant::now(), request, What::Abandoned);
        }
    }

    /// A coordinator begins with nothing of what the one before had: clients that show nothing of what they
    /// hold have lost it.
    pub(super) fn forget(&self) {
        self.forgotten.set(self.forgotten.get() + 1);
        let open: Vec<_> = self.open.borrow().keys().copied().collect();
        open.into_iter().filter(|it| is_stranger(it.client)).for_each(|it| self.end_belief(it));
    }

    /// How often that was so.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.get()
    }

    /// All that was written down.
    pub(super) fn take(&self) -> (Log, Vec<String>, BTreeMap<&'static str, u64>) {
        let (kept, overtaken) = self.places.take().judge();
        self.complaints.borrow_mut().extend(overtaken);
        self.counts.borrow_mut().insert("places kept over a crash", kept);
        for (request, Open { believed_until, .. }) in &*self.open.borrow() {
            let state = if believed_until.is_some() { "held" } else { "asked" };
            self.complaints.borrow_mut().push(format!("{request} is still {state} at the end"));
        }
        (self.log.take(), self.complaints.take(), self.counts.take())
    }

    fn note(&self, clock: &SkewedClock, at: Instant, request: RequestName, what: What) {
        let RequestName { client, number } = request;
        self.trace.say(format_args!("client {client}: request {number}: {what:?}"));
        let local = clock.shows_at(at);
        let at = u64::try_from((at - self.origin).as_micros()).unwrap();
        let ends =
            matches!(what, What::Refused | What::ReleaseAnswered | What::Lost | What::Abandoned);
        if ends {
            self.open.borrow_mut().remove(&request);
        }
        self.log.borrow_mut().note(Entry { at, local, request, what });
    }

    /// Nobody believes in it from now on, or since its lease was over.
    fn end_belief(&self, request: RequestName) {
        let ended = {
            let mut open = self.open.borrow_mut();
            let open = open.get_mut(&request);
            open.and_then(|open| Some((open.clock, open.believed_until.take()?)))
        };
        if let Some((clock, until)) = ended {
            self.note(&clock, until.min(Instant::now()), request, What::BeliefEnded);
        }
    }
}

/// One client's way to write.
#[derive(Clone)]
pub(super) struct Diary {
    /// What all write into.
    book: Rc<Book>,
    /// Who writes.
    pub(super) client: u64,
    /// The clock it looks at.
    pub(super) clock: SkewedClock,
    /// How many requests it made.
    requests: Rc<Cell<u64>>,
}

impl Diary {
    pub(super) fn new(book: Rc<Book>, client: u64, clock: SkewedClock) -> Self {
        Self { book, client, clock, requests: Rc::default() }
    }

    /// What all write into.
    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// Counts something.
    pub(super) fn count(&self, what: &'static str) {
        self.book.count(what);
    }

    /// Something could not be.
    pub(super) fn complain(&self, what: String) {
        self.book.complain(what);
    }

    /// It asks for something.
    pub(super) fn asks(&self, wanted: Vec<Wanted>) -> RequestName {
        self.invokes(What::Invoked { wanted, goes_first: false })
    }

    /// It asks for what it holds to be held otherwise.
    pub(super) fn converts(&self, wanted: Vec<Wanted>) -> RequestName {
        self.invokes(What::Invoked { wanted, goes_first: true })
    }

    fn invokes(&self, invoked: What) -> RequestName {
        self.requests.set(self.requests.get() + 1);
        let request = RequestName { client: self.client, number: self.requests.get() };
        let open = Open { clock: self.clock, believed_until: None };
        self.book.open.borrow_mut().insert(request, open);
        self.note(request, invoked);
        request
    }

    /// It is granted what it was heard to wait for.
    pub(super) fn waited(&self, request: RequestName, grant: Grant<'_>) {
        if let Some(at) = self.book.places.borrow_mut().granted(request, grant) {
            self.book.note(&self.clock, at, request, What::Queued);
        }
    }

    /// It is granted what `guard` is.
    pub(super) fn granted(&self, request: RequestName, guard: &LockGuard) {
        self.note(request, What::Granted { token: guard.token().number() });
        if let Some(open) = self.book.open.borrow_mut().get_mut(&request) {
            open.believed_until = Some(Instant::now());
        }
        self.believes(request, guard);
    }

    /// It looks at its guard: for how long it will believe in it if nothing happens.
    pub(super) fn believes(&self, request: RequestName, guard: &LockGuard) -> Duration {
        let left = self.clock.true_length(guard.left());
        if left > Duration::ZERO
            && let Some(open) = self.book.open.borrow_mut().get_mut(&request)
            && let Some(until) = &mut open.believed_until
        {
            *until = Instant::now() + left;
        }
        left
    }

    /// It is granted something, and believes in it until then.
    pub(super) fn granted_until(&self, request: RequestName, token: u64, until: Instant) {
        self.note(request, What::Granted { token });
        if let Some(open) = self.book.open.borrow_mut().get_mut(&request) {
            open.believed_until = Some(until);
        }
    }

    /// Until when it believes; none: it does not.
    pub(super) fn believed_until(&self, request: RequestName) -> Option<Instant> {
        self.book.open.borrow().get(&request)?.believed_until
    }

    /// It believes until then, if it believes now.
    pub(super) fn believes_until(&self, request: RequestName, until: Instant) {
        if let Some(open) = self.book.open.borrow_mut().get_mut(&request)
            && let Some(believed) = &mut open.believed_until
            && *believed > Instant::now()
        {
            *believed = until;
        }
    }

    /// It believes until then at most.
    pub(super) fn believes_not_longer(&self, request: RequestName, until: Instant) {
        if self.believed_until(request).is_some_and(|believed| believed > until) {
            self.believes_until(request, until);
        }
    }

    /// It believes no more.
    pub(super) fn ends_belief(&self, request: RequestName) {
        self.book.end_belief(request);
    }

    /// It is told that it has lost what it held. By its own clock it must have known.
    pub(super) fn lost(&self, request: RequestName, reason: LostReason) {
        let believed = self.book.open.borrow().get(&request).and_then(|open| open.believed_until);
        if let Some(until) = believed
            && until > Instant::now()
        {
            let left = until - Instant::now();
            self.book.complain(format!("{request} was lost ({reason}) {left:?} before its lease"));
        }
        let is_just = match reason {
            LostReason::Expired | LostReason::NotReclaimed => true,
            // It was given up in part, by a downgrade that was granted unheard before a crash: whom that
            // let in was back first.
            LostReason::Conflict => believed.is_none(),
            LostReason::Revoked
            | LostReason::Disconnected
            | LostReason::Stopped
            | LostReason::Forked
            | LostReason::Refused
            | LostReason::Unknown(_) => false,
        };
        if !is_just {
            self.book.complain(format!("{request} was lost: {reason}"));
        }
        self.book.count("lost");
        self.ends(request, What::Lost);
    }

    /// Something else about a request.
    pub(super) fn note(&self, request: RequestName, what: What) {
        self.book.note(&self.clock, Instant::now(), request, what);
    }

    /// It is over, and with it the belief in it.
    pub(super) fn ends(&self, request: RequestName, what: What) {
        self.book.end_belief(request);
        self.note(request, what);
    }

    /// It writes to what `lock` protects. Who believes is never refused.
    pub(super) fn writes(&self, request: RequestName, lock: &str, guard: &LockGuard) {
        self.shows(request, lock, guard.token(), guard.is_held());
    }

    /// The same by a token.
    pub(super) fn writes_with(&self, request: RequestName, lock: &str, token: u64) {
        let until = self.believed_until(request);
        let believes = until.is_some_and(|until| until > Instant::now());
        self.shows(request, lock, FencingToken(token), believes);
    }

    fn shows(&self, request: RequestName, lock: &str, token: FencingToken, believes: bool) {
        let accepted = {
            let mut fences = self.book.fences.borrow_mut();
            fences.entry(lock.into()).or_default().check(token).is_ok()
        };
        if believes && !accepted {
            self.book
                .complain(format!("{request} believed in {lock}, and a newer one had written"));
        }
        let resource = lock.into();
        self.note(request, What::Wrote { resource, token: token.number(), accepted });
    }

    /// Whether something happens that does so once in `times`, in a run that is not over.
    pub(super) fn once_in(&self, random: &mut Random, times: usize) -> bool {
        random.once_in(times) && !self.book.is_over()
    }
}
