//! Logs that are as they should be, and one of each kind that is not.

use super::*;

/// Writes a log: `at 3, client 1: …` with the clock of each client an hour ahead of the referee's.
#[derive(Default)]
struct Scribe {
    log: Log,
    now: u64,
}

fn name(client: u64, number: u64) -> RequestName {
    RequestName { client, number }
}

impl Scribe {
    /// Something happens a second later.
    fn then(mut self, client: u64, number: u64, what: What) -> Self {
        self.now += 1_000_000;
        let request = name(client, number);
        let local = self.now + 3_600_000_000;
        self.log.note(Entry { at: self.now, local, request, what });
        self
    }

    /// Something happens at the same time.
    fn and(mut self, client: u64, number: u64, what: What) -> Self {
        self.now -= 1_000_000;
        self.then(client, number, what)
    }

    fn asks(self, client: u64, number: u64, how: How) -> Self {
        let wanted = vec![Wanted { lock: "a".into(), how }];
        self.then(client, number, What::Invoked { wanted, goes_first: false })
    }

    fn converts(self, client: u64, number: u64, how: How) -> Self {
        let wanted = vec![Wanted { lock: "a".into(), how }];
        self.then(client, number, What::Invoked { wanted, goes_first: true })
    }

    fn granted(self, client: u64, number: u64, token: u64) -> Self {
        self.then(client, number, What::Granted { token })
    }

    fn releases(self, client: u64, number: u64) -> Self {
        self.then(client, number, What::BeliefEnded).and(client, number, What::ReleaseInvoked).then(
            client,
            number,
            What::ReleaseAnswered,
        )
    }

    fn loses(self, client: u64, number: u64) -> Self {
        self.then(client, number, What::BeliefEnded).and(client, number, What::Lost)
    }

    /// The one thing that is wrong with it, in words.
    fn wrong(self) -> String {
        let violations = self.log.check().expect_err("all is well");
        assert_eq!(violations.len(), 1, "{violations:?}");
        violations[0].to_string()
    }

    fn right(self) -> Figures {
        self.log.check().unwrap()
    }
}

fn wrote(token: u64, accepted: bool) -> What {
    What::Wrote { resource: "disk".into(), token, accepted }
}

const EXCLUSIVE: How = How::Exclusive;
const SHARED: How = How::Shared;

fn permits(take: u32) -> How {
    How::Permits { take, of: 3 }
}

#[test]
fn one_after_the_other_is_right() {
    let figures = Scribe::default()
        .asks(1, 1, EXCLUSIVE)
        .granted(1, 1, 7)
        .asks(2, 1, EXCLUSIVE)
        .then(2, 1, What::Queued)
        .then(1, 1, wrote(7, true))
        .releases(1, 1)
        .granted(2, 1, 8)
        .then(2, 1, wrote(8, true))
        .then(1, 1, wrote(7, false))
        .loses(2, 1)
        .asks(1, 2, EXCLUSIVE)
        .then(1, 2, What::Refused)
        .right();
    let expected =
        Figures { requests: 3, grants: 2, losses: 1, refusals: 1, writes: 2, refused_writes: 1 };
    assert_eq!(figures, expected);
}

#[test]
fn two_exclusive_holders_at_a_time_are_found() {
    let wrong = Scribe::default()
        .asks(1, 1, EXCLUSIVE)
        .asks(2, 1, EXCLUSIVE)
        .granted(1, 1, 7)
        .granted(2, 1, 8)
        .releases(1, 1)
        .wrong();
    assert_eq!(
        wrong,
        "two holders of \"a\": request 1 of client 1 (exclusively, token 7) believed from \
         3.000000 s until 5.000000 s (by its own clock 3603.000000 s until 3605.000000 s); \
         request 1 of client 2 (exclusively, token 8) believed from 4.000000 s to the end"
    );
}

#[test]
fn one_that_holds_beside_those_who_share_is_found_and_those_who_share_are_not() {
    let shared = || {
        let scribe = Scribe::default().asks(1, 1, SHARED).asks(2, 1, SHARED).asks(3, 1, EXCLUSIVE);
        scribe.granted(1, 1, 1).granted(2, 1, 2).releases(2, 1)
    };
    shared().releases(1, 1).granted(3, 1, 3).right();
    let wrong = shared().granted(3, 1, 3).releases(1, 1).wrong();
    assert!(wrong.starts_with("two holders of \"a\": request 1 of client 1 (shared"), "{wrong}");
}

#[test]
fn holds_that_exclude_each_other_come_in_the_order_of_tokens() {
    let wrong = Scribe::default()
        .asks(1, 1, EXCLUSIVE)
        .asks(2, 1, EXCLUSIVE)
        .granted(1, 1, 8)
        .releases(1, 1)
        .granted(2, 1, 7)
        .releases(2, 1)
        .wrong();
    assert!(wrong.starts_with("two holders of \"a\": request 1 of client 2"), "{wrong}");
}

#[test]
fn more_permits_than_there_are_are_found() {
    let two = || Scribe::default().asks(1, 1, permits(2)).asks(2, 1, permits(2)).granted(1, 1, 1);
    two().releases(1, 1).granted(2, 1, 2).right();
    let wrong = two().granted(2, 1, 2).releases(1, 1).wrong();
    assert!(wrong.starts_with("4 of 3 permits of \"a\" are out since request 1 of"), "{wrong}");
    // What ends at the moment at which another begins is not out together with it.
    let turns = two().then(1, 1, What::BeliefEnded).and(2, 1, What::Granted { token: 2 });
    turns.right();
}

#[test]
fn a_lock_that_is_two_things_at_a_time_is_found() {
    let wrong = Scribe::default()
        .asks(1, 1, permits(1))
        .asks(2, 1, SHARED)
        .granted(1, 1, 1)
        .granted(2, 1, 2)
        .wrong();
    assert!(wrong.starts_with("\"a\" is two kinds of lock at a time: request 1 of"), "{wrong}");
}

#[test]
fn a_token_that_is_not_greater_than_one_heard_of_before_is_found() {
    let wrong = Scribe::default()
        .asks(1, 1, SHARED)
        .granted(1, 1, 7)
        .asks(2, 1, SHARED)
        .granted(2, 1, 6)
        .wrong();
    assert_eq!(
        wrong,
        "request 1 of client 2 came after request 1 of client 1 had heard of token 7, and got 6"
    );
    // Of those on their way together, nothing is known.
    let together = Scribe::default().asks(1, 1, SHARED).asks(2, 1, SHARED);
    together.granted(1, 1, 7).granted(2, 1, 6).right();
}

#[test]
fn a_token_that_two_have_is_found() {
    let both = Scribe::default().asks(1, 1, SHARED).asks(2, 1, SHARED);
    let wrong = both.granted(1, 1, 7).granted(2, 1, 7).wrong();
    assert_eq!(wrong, "request 1 of client 1 and request 1 of client 2 were both granted token 7");
}

#[test]
fn a_conversion_may_keep_its_token_and_go_first() {
    let shared = || {
        Scribe::default().asks(1, 1, EXCLUSIVE).granted(1, 1, 1).asks(2, 1, SHARED).then(
            2,
            1,
            What::Queued,
        )
    };
    let downgraded = shared().then(1, 1, What::BeliefEnded).converts(1, 2, SHARED);
    downgraded.granted(1, 2, 1).granted(2, 1, 2).right();
    let upgraded = shared().then(1, 1, What::BeliefEnded).converts(1, 2, EXCLUSIVE);
    upgraded.granted(1, 2, 2).releases(1, 2).granted(2, 1, 3).right();
}

#[test]
fn one_who_overtakes_is_found_unless_the_place_was_lost() {
    let first = || Scribe::default().asks(1, 1, EXCLUSIVE).then(1, 1, What::Queued);
    let overtaken = |first: Scribe| {
        first.asks(2, 1, EXCLUSIVE).granted(2, 1, 7).releases(2, 1).granted(1, 1, 8)
    };
    assert_eq!(
        overtaken(first()).wrong(),
        "request 1 of client 1 waited for \"a\", and knew at 2.000000 s; request 1 of client 2 \
         came at 3.000000 s and overtook it"
    );
    overtaken(first().then(1, 1, What::PlaceLost)).right();
    overtaken(Scribe::default().asks(1, 1, EXCLUSIVE)).right();
}

#[test]
fn a_second_token_for_one_request_and_a_grant_after_the_end_are_found() {
    let held = || Scribe::default().asks(1, 1, EXCLUSIVE).granted(1, 1, 7);
    let wrong = held().granted(1, 1, 8).wrong();
    assert_eq!(wrong, "request 1 of client 1 was granted token 7, and then 8");
    let wrong = held().releases(1, 1).granted(1, 1, 7).wrong();
    assert!(wrong.starts_with("request 1 of client 1 was over, and was granted"), "{wrong}");
    let cancelled = Scribe::default().asks(1, 1, EXCLUSIVE).then(1, 1, What::Abandoned);
    let wrong = cancelled.granted(1, 1, 8).wrong();
    assert!(wrong.starts_with("request 1 of client 1 was over, and was granted"), "{wrong}");
}

#[test]
fn whoever_still_believes_when_it_gives_back_or_hears_of_its_loss_is_found() {
    let held = || Scribe::default().asks(1, 1, EXCLUSIVE).granted(1, 1, 7);
    let wrong = held().then(1, 1, What::ReleaseInvoked).then(1, 1, What::ReleaseAnswered).wrong();
    assert!(wrong.contains("still believed in its hold when it gave it back"), "{wrong}");
    let wrong = held().then(1, 1, What::Lost).wrong();
    assert!(wrong.contains("still believed in its hold when it heard of its loss"), "{wrong}");
}

#[test]
fn what_is_never_answered_is_found() {
    let asked = Scribe::default().asks(1, 1, EXCLUSIVE);
    let wrong = asked.wrong();
    assert_eq!(wrong, "the asking of request 1 of client 1 at 1.000000 s was never answered");
    let held = || Scribe::default().asks(1, 1, EXCLUSIVE).granted(1, 1, 7);
    let released = || held().then(1, 1, What::BeliefEnded).then(1, 1, What::ReleaseInvoked);
    let wrong = released().wrong();
    assert_eq!(wrong, "the release of request 1 of client 1 at 4.000000 s was never answered");
    released().then(1, 1, What::Abandoned).right();
}

#[test]
fn what_was_never_asked_is_found() {
    let wrong = Scribe::default().granted(1, 1, 7).wrong();
    assert!(wrong.contains("when it had not come"), "{wrong}");
    let asked = Scribe::default().asks(1, 1, SHARED);
    let wrong = asked.granted(1, 1, 7).then(1, 1, What::ReleaseAnswered).wrong();
    assert!(wrong.contains("was said to be free"), "{wrong}");
}

#[test]
fn a_resource_that_goes_back_or_refuses_in_order_is_found() {
    let held = || Scribe::default().asks(1, 1, SHARED).granted(1, 1, 7);
    let wrong = held().then(1, 1, wrote(7, true)).then(1, 1, wrote(6, true)).wrong();
    assert!(wrong.starts_with("\"disk\" took token 6 of request 1 of client 1"), "{wrong}");
    let wrong = held().then(1, 1, wrote(7, false)).wrong();
    assert!(wrong.starts_with("\"disk\" refused token 7 of request 1 of client 1"), "{wrong}");
}

#[test]
fn logs_of_several_threads_are_put_into_order() {
    let first = Scribe::default().asks(1, 1, EXCLUSIVE).granted(1, 1, 1).releases(1, 1);
    let mut second = Scribe { now: 10_000_000, ..Scribe::default() };
    second = second.asks(2, 1, EXCLUSIVE).granted(2, 1, 2).releases(2, 1);
    second.log.append(first.log);
    assert_eq!(second.right().grants, 2);
}

#[test]
fn a_clock_that_goes_back_is_found() {
    let mut scribe = Scribe::default().asks(1, 1, SHARED).granted(1, 1, 7);
    let what = What::BeliefEnded;
    scribe.log.note(Entry { at: 9_000_000, local: 5, request: name(1, 1), what });
    assert_eq!(scribe.wrong(), "the clock of client 1 went back at 9.000000 s");
}
