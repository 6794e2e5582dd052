//! What happens in the rarest cases, step by step.

use std::time::Duration;

use super::judge::Fault;
use super::model::{Cluster, FORGOTTEN, Journal, Move, Notice, TIMING};
use crate::cluster::{Arbiter, Table, Tenure};

/// The arbiter of the beginning.
const SAME: Arbiter = Arbiter(1);
/// Another one.
const OTHER: Arbiter = Arbiter(2);

/// A cluster in which nothing that must not be has been yet.
struct Story(Cluster);

impl Story {
    fn then(&mut self, it: &Move) -> &mut Self {
        let done = self.0.happen(it);
        self.check(done)
    }

    fn check(&mut self, done: Result<(), Fault>) -> &mut Self {
        if let Err(fault) = done {
            panic!("{fault}");
        }
        self
    }

    /// What a node proposes is done, and it hears of that.
    fn swaps(&mut self, node: usize) -> &mut Self {
        self.is_done(node);
        let done = self.0.answer_latest(node);
        self.check(done)
    }

    /// What a node proposes is done, and it has not heard of that yet.
    fn is_done(&mut self, node: usize) -> &mut Self {
        let done = self.0.arrive_latest(node);
        self.check(done)
    }

    /// A node asks for the seat, and hears what it is.
    fn looks(&mut self, node: usize) -> &mut Self {
        self.then(&Move::Tick(node)).then(&Move::Read(node));
        let done = self.0.answer_latest(node);
        self.check(done)
    }

    /// A record, and an acknowledgement of all that was sent, go along the only link.
    fn is_followed(&mut self) -> &mut Self {
        self.then(&Move::Stream(0)).then(&Move::Acknowledge(0)).then(&Move::Acknowledge(0))
    }

    /// Somebody who has seen the seat takes the lead when its lease is over.
    fn takes_over(&mut self, node: usize) -> &mut Self {
        self.looks(node).then(&Move::Pass(TIMING.lease + Duration::from_millis(100)));
        self.then(&Move::Tick(node)).swaps(node).then(&Move::Pass(Duration::from_millis(1)))
    }

    /// The same of somebody who must not.
    fn takes_over_in_vain(&mut self, node: usize) -> &mut Self {
        self.then(&Move::Pass(TIMING.beat())).looks(node);
        self.then(&Move::Pass(TIMING.lease * 2)).looks(node);
        assert!(self.0.nodes[node].member.awaits().is_none() && !self.leads(node));
        self
    }

    fn leads(&self, node: usize) -> bool {
        self.0.nodes[node].member.leads() == Some(self.0.judge.latest_term())
    }
}

/// Members, of which the first leads alone.
pub(super) fn alone(count: usize) -> Cluster {
    let mut story = Story(Cluster::new(&vec![0; count]));
    story.looks(0).swaps(0).then(&Move::Say(0));
    assert!(story.leads(0));
    story.0.tidy();
    story.0
}

/// The same, once it has granted something and the second is in sync.
pub(super) fn in_sync(count: usize) -> Cluster {
    let mut story = Story(alone(count));
    story.then(&Move::Append(0)).then(&Move::Say(0));
    story.then(&Move::Follow(0, 1)).then(&Move::Acknowledge(0)).swaps(0);
    assert_eq!(story.0.joined, 1);
    story.0.tidy();
    story.0
}

#[test]
fn a_standby_in_sync_leads_with_all_that_was_said_as_soon_as_its_leader_is_silent() {
    let mut story = Story(in_sync(2));
    story.then(&Move::Append(0)).is_followed().then(&Move::Say(0));
    story.then(&Move::Crash(0, Journal::Void)).looks(1).swaps(1);
    assert!(story.leads(1));
    assert_eq!(story.0.judge.leads, [1, 1, 0]);
}

#[test]
fn p2_a_standby_is_in_the_seat_only_once_it_has_all_that_was_said() {
    let mut story = Story(alone(2));
    story.then(&Move::Follow(0, 1)).then(&Move::Append(0)).then(&Move::Say(0));
    // The acknowledgement of what was before.
    story.then(&Move::Acknowledge(0)).swaps(0);
    story.then(&Move::Crash(0, Journal::Void)).looks(1).swaps(1);
    assert!(!story.leads(1), "it has not all");
}

#[test]
fn p3_a_leader_that_may_be_alone_says_nothing_beyond_its_lease() {
    let mut story = Story(in_sync(3));
    story.then(&Move::Append(0)).then(&Move::Pass(TIMING.silence)).then(&Move::Tick(0));
    // The standby is taken out; the leader does not hear of it, another does.
    story.is_done(0).takes_over(2);
    assert!(story.leads(2));
    story.then(&Move::Append(0)).is_followed().is_followed().then(&Move::Say(0));
    assert_eq!(story.0.judge.total_said, 1, "only what was said before");
}

#[test]
fn p7_what_a_leader_stands_still_itself_is_no_silence_of_its_standby() {
    let mut story = Story(in_sync(2));
    story.then(&Move::Append(0)).then(&Move::Stall(0, TIMING.silence * 8));
    // What it has acknowledged meanwhile is heard a moment later.
    assert!(story.0.proposals.is_empty(), "it did not hear what its standby said");
    story.is_followed().then(&Move::Say(0));
    assert_eq!(story.0.judge.total_said, 2, "with the standby");
    // One that is silent is taken out, however often the leader stands still.
    story.then(&Move::Append(0));
    for _ in 0..2 {
        assert!(story.0.proposals.is_empty());
        story.then(&Move::Stall(0, TIMING.silence * 8));
    }
    assert_eq!(story.0.proposals.len(), 1, "nobody is answered as long as it is in the seat");
}

#[test]
fn p4_who_tries_to_take_the_lead_acknowledges_nothing_meanwhile() {
    let mut story = Story(in_sync(3));
    // It is the leader, and does not know; so a third one takes the lead from it, with an empty table.
    story.then(&Move::Silence(1)).looks(1).is_done(1).takes_over(2);
    assert!(story.leads(2));
    story.then(&Move::Append(0)).is_followed().then(&Move::Say(0));
    assert_eq!(story.0.judge.total_said, 1, "only what was said before");
}

#[test]
fn p5_who_began_anew_is_not_the_standby_that_the_seat_names() {
    let mut story = Story(in_sync(2));
    story.then(&Move::Crash(1, Journal::Void)).then(&Move::Silence(1)).takes_over(1);
    assert!(!story.leads(1));
}

#[test]
fn p6_nobody_takes_the_lead_from_a_pair_in_sync_unless_an_operator_says_so() {
    let mut story = Story(in_sync(3));
    story.then(&Move::Silence(2)).takes_over(2).takes_over(2);
    assert!(!story.leads(2));
    story.then(&Move::Crash(0, Journal::Void)).then(&Move::Crash(1, Journal::Void));
    story.takes_over(2);
    assert!(!story.leads(2));
    story.then(&Move::Lost(2)).swaps(2);
    assert!(story.leads(2));
    assert_eq!(story.0.judge.leads, [1, 0, 1], "with a grace period");
}

#[test]
fn p6_what_is_lost_is_who_was_in_the_seat_when_the_operator_looked() {
    let mut story = Story(in_sync(3));
    story.looks(2).then(&Move::Lost(2));
    // What it proposes comes too late: somebody took the lead in between, and has a standby by now.
    story.then(&Move::Silence(1)).looks(1).swaps(1);
    story.then(&Move::Pass(TIMING.beat())).looks(0);
    story.then(&Move::Follow(1, 0)).then(&Move::Acknowledge(0)).swaps(1);
    assert_eq!(story.0.joined, 2);
    story.swaps(2).looks(2).swaps(2);
    assert!(story.leads(1) && !story.leads(2));
}

#[test]
fn who_stopped_in_order_is_followed_at_once_and_comes_back_with_its_table() {
    let mut story = Story(alone(2));
    story.then(&Move::Append(0)).then(&Move::Say(0)).then(&Move::Stop(0)).swaps(0);
    assert_eq!(story.0.seat.map(|seat| seat.tenure), Some(Tenure::Resigned));
    let mut other = Story(story.0.clone());
    other.looks(1).swaps(1);
    assert!(other.leads(1));
    assert_eq!(other.0.judge.leads, [1, 0, 1]);
    story.then(&Move::Crash(0, Journal::Whole)).looks(0).swaps(0);
    assert!(story.leads(0));
    assert_eq!(story.0.judge.leads, [1, 1, 0]);
}

#[test]
fn a_leader_in_sync_that_stops_hands_over_to_its_standby() {
    let mut story = Story(in_sync(2));
    story.then(&Move::Append(0)).is_followed().then(&Move::Say(0)).then(&Move::Stop(0)).swaps(0);
    story.looks(1).swaps(1);
    assert!(story.leads(1));
    assert_eq!(story.0.judge.leads, [1, 1, 0]);
}

#[test]
fn h1_a_swap_whose_answer_was_lost_is_done_once() {
    let mut story = Story(Cluster::new(&[0, 0]));
    // Executed twice: the second time it is refused, and the refusal shows its own mark.
    story.looks(0).is_done(0).swaps(0);
    assert!(story.leads(0));
    assert_eq!(story.0.version.0, 1);
}

#[test]
fn h2_an_answer_that_comes_late_renews_no_lease_unless_whoever_decides_has_turned() {
    let mut story = Story(alone(2));
    story.then(&Move::Pass(TIMING.beat())).then(&Move::Tick(0)).then(&Move::Pass(TIMING.beat()));
    story.swaps(0);
    assert_eq!(story.0.nodes[0].member.awaits(), None, "nothing has turned since");
    story.then(&Move::Tick(0));
    assert!(story.0.nodes[0].member.awaits().is_some());
}

#[test]
fn h3_a_grace_period_is_inherited_and_only_who_is_first_has_none() {
    assert!(Table::Empty.begins_grace(false) && Table::Own.begins_grace(true));
    assert!(!Table::Own.begins_grace(false) && !Table::New.begins_grace(false));
}

#[test]
fn h4_an_arbiter_that_was_set_back_is_not_believed_until_an_operator_says_so() {
    let mut story = Story(alone(2));
    let before = (story.0.version, story.0.seat);
    story.then(&Move::Pass(TIMING.beat())).then(&Move::Tick(0)).swaps(0);
    story.looks(1).then(&Move::Restore(SAME, before.0, before.1));
    // The leader hears of it from a swap, and leads no more.
    story.then(&Move::Pass(TIMING.beat())).then(&Move::Tick(0)).swaps(0).takes_over(1);
    assert!(!story.leads(0) && !story.leads(1));
    assert_eq!(story.0.nodes[1].member.arbiter_is_behind(), Some(before.0));
    story.then(&Move::Lost(1)).swaps(1);
    assert!(story.leads(1));
    assert_eq!(story.0.judge.leads, [1, 0, 1]);
}

#[test]
fn h4_another_arbiter_is_not_believed_whatever_it_has_until_an_operator_says_so() {
    let mut story = Story(alone(3));
    story.looks(1).looks(2);
    let before = (story.0.version, story.0.seat);
    // A copy of now, under another name: nobody remembers more than it has.
    story.then(&Move::Restore(OTHER, before.0, before.1));
    story.then(&Move::Pass(TIMING.beat())).then(&Move::Tick(0)).swaps(0);
    assert_eq!(story.0.version, before.0, "nothing is asked of it that changes something");
    story.takes_over_in_vain(1).looks(0);
    assert_eq!(story.0.nodes[1].member.other_arbiter(), Some(OTHER));
    // The one that led may say nothing, and goes on if the right one is back before its lease is missed.
    assert_eq!(story.0.nodes[0].member.leads(), Some(1));
    let mut back = Story(story.0.clone());
    back.then(&Move::Restore(SAME, before.0, before.1)).then(&Move::Pass(TIMING.beat()));
    back.looks(1).takes_over(1);
    assert!(back.leads(1));
    // What an operator says of one arbiter is not said of the other.
    back.then(&Move::Restore(OTHER, before.0, before.1)).then(&Move::Lost(1));
    assert!(back.0.nodes[1].member.leads().is_some());
    story.then(&Move::Lost(1)).swaps(1).then(&Move::Say(1));
    assert!(story.leads(1));
    assert_eq!((story.0.judge.leads, story.0.judge.passed), ([1, 0, 1], 1));
    // The others need no word: the seat says in whose place this one decides.
    for node in [0, 2] {
        story.then(&Move::Pass(TIMING.beat())).then(&Move::Tick(node)).is_done(node).looks(node);
        assert_eq!(story.0.nodes[node].member.arbiter(), Some(OTHER));
        assert!(!story.0.nodes[node].member.doubts_arbiter() && !story.leads(node));
    }
    story.takes_over(2);
    assert!(story.leads(2));
}

#[test]
fn h4_whoever_was_away_knows_another_arbiter_for_another_when_it_is_back() {
    let mut story = Story(in_sync(2));
    story.looks(1).then(&Move::Append(0)).is_followed();
    let before = (story.0.version, story.0.seat);
    story.then(&Move::Crash(0, Journal::Whole)).then(&Move::Crash(1, Journal::Whole));
    story.then(&Move::Restore(OTHER, before.0, before.1));
    for node in [0, 1] {
        story.takes_over_in_vain(node);
    }
    story.then(&Move::Lost(1)).swaps(1).then(&Move::Say(1));
    assert!(story.leads(1));
    assert_eq!(story.0.judge.passed, 1, "with the longest grace period");
}

#[test]
fn h4_another_arbiter_is_to_a_pair_in_sync_no_more_than_one_that_is_away() {
    let mut story = Story(in_sync(3));
    story.looks(1);
    let before = (story.0.version, story.0.seat);
    story.then(&Move::Restore(OTHER, before.0, before.1));
    for node in [0, 1] {
        story.then(&Move::Pass(TIMING.beat())).looks(node);
        assert_eq!(story.0.nodes[node].member.arbiter_is_behind(), None);
    }
    story.then(&Move::Append(0)).is_followed().then(&Move::Say(0));
    assert_eq!(story.0.judge.total_said, 2);
    story.then(&Move::Silence(1)).takes_over_in_vain(1);
}

#[test]
fn h4_what_a_restored_arbiter_has_is_passed_by_whoever_begins_first_and_not_only_by_who_was_let_lead()
 {
    for is_late in [true, false] {
        let mut story = Story(alone(2));
        let before = (story.0.version, story.0.seat);
        story.then(&Move::Pass(TIMING.beat())).then(&Move::Tick(0)).swaps(0).looks(1);
        story.then(&Move::Restore(SAME, before.0, before.1)).then(&Move::Pass(TIMING.beat()));
        story.looks(1).then(&Move::Lost(1)).is_done(1);
        if is_late {
            story.then(&Move::Pass(TIMING.lease));
        }
        let heard = story.0.answer_latest(1);
        story.check(heard);
        assert_eq!(story.leads(1), !is_late);
        if !is_late {
            // It has left nothing, and who follows it remembers nothing.
            story.then(&Move::Crash(1, Journal::Void));
        }
        story.takes_over(1).then(&Move::Say(1));
        assert!(story.leads(1));
        assert_eq!(story.0.judge.passed, 1);
        // And by nobody else.
        story.then(&Move::Crash(1, Journal::Void)).takes_over(1).then(&Move::Say(1));
        assert!(story.leads(1));
        assert_eq!(story.0.judge.passed, 1);
    }
}

#[test]
fn h6_an_arbiter_of_which_is_proved_that_it_was_set_back_has_no_leader_until_an_operator_says_so() {
    for began in [alone(2), in_sync(2)] {
        let mut story = Story(began);
        story.looks(1).then(&Move::Contradict(0));
        assert!(!story.leads(0), "it decides nothing from then on");
        story.swaps(0).takes_over_in_vain(1);
        // It is remembered by the arbiter: so whoever starts anew knows it as well.
        for node in [0, 1] {
            story.then(&Move::Crash(node, Journal::Whole)).takes_over_in_vain(node);
        }
        assert_eq!(story.0.seat.map(|seat| seat.tenure), Some(Tenure::SetBack));
        story.then(&Move::Lost(1)).swaps(1);
        assert!(story.leads(1));
        assert_eq!(story.0.judge.leads, [1, 0, 1], "with an empty table");
        assert_eq!(story.0.seat.map(|seat| seat.gap.epoch), Some(FORGOTTEN));
    }
}

#[test]
fn h6_who_is_contradicted_and_was_followed_by_another_leaves_that_one_alone() {
    let mut story = Story(alone(2));
    story.looks(1).then(&Move::Pass(TIMING.beat())).then(&Move::Tick(0)).is_done(0);
    story.then(&Move::Contradict(0)).takes_over(1);
    assert!(story.leads(1));
    let done = story.0.answer_latest(0);
    story.check(done).swaps(0);
    assert_eq!(story.0.seat.map(|seat| seat.tenure), Some(Tenure::Held));
}

#[test]
fn a_link_that_broke_and_is_there_again_deposes_nobody() {
    let mut story = Story(in_sync(2));
    story.then(&Move::Cut(0, Notice::Later)).swaps(0);
    story.then(&Move::Follow(0, 1)).then(&Move::Acknowledge(0)).swaps(0);
    assert!(story.leads(0));
    assert_eq!((story.0.joined, story.0.judge.leads), (2, [1, 0, 0]));
}
