//! What is not there, and said all the same: locks beside the one that is asked about, a holder that is gone, an ear.

use coordinator::wire::{After, Outlook, Pause};

use super::*;

#[test]
fn what_goes_with_a_grant_is_named_before_it_is_broken() {
    let all = ["a", "b", "c"].map(|name| lock(name, vec![holder("ann", 7, 50, "")], Vec::new()));
    let (mut top, now) = seen(List::Locks(all.to_vec()));
    press(&mut top, KeyCode::Char('b'));
    let shown = screen(&top, now, Ink::rich(), (80, 24));
    assert!(shown.contains("With it go \"b\", \"c\""), "{shown}");
}

#[test]
fn a_lock_that_is_kept_says_why_and_can_be_let_go() {
    let pause = |after, token| Pause {
        after,
        session: SessionId::new(9),
        identity: Identity::new("cron@db1:77").unwrap(),
        token: FencingToken::new(token),
        granted_ms: 60_000,
        length_ms: 3_600_000,
        left_ms: 3_540_000,
    };
    let name = LockName::new("nightly").unwrap();
    let see = |top: &mut Top, after, now| {
        let outlooks =
            vec![Outlook { name: name.clone(), free_ms: None, pauses: vec![pause(after, 1650)] }];
        let lock = lock("nightly", Vec::new(), vec![waiter("x", 9)]);
        let list = if top.wanted() == Wanted::Waits {
            List::Waits(vec![lock])
        } else {
            List::Lock("nightly".to_owned(), Some(lock))
        };
        top.see(Ok(Sight { outlooks, ..sight(server(), list) }), now);
    };
    let (mut top, now) = seen(List::Waits(Vec::new()));
    see(&mut top, After::Grant, now);
    let shown = screen(&top, now, Ink::rich(), (120, 10));
    assert!(shown.contains("kept for 59m more") && shown.contains("1650"), "{shown}");
    press(&mut top, KeyCode::Enter);
    see(&mut top, After::Grant, now);
    assert_screen("kept.txt", &top, now, (120, 10));
    type_in(&mut top, "bnightly");
    press(&mut top, KeyCode::Tab);
    type_in(&mut top, "again");
    let expected = FencingToken::new(1650);
    assert!(
        matches!(press(&mut top, KeyCode::Enter), Order::Break { token, .. } if token == expected)
    );
    // A lock delay ends by itself.
    see(&mut top, After::Loss, now);
    press(&mut top, KeyCode::Char('b'));
    let shown = screen(&top, now, Ink::rich(), (120, 10));
    assert!(shown.contains("its holder was lost") && shown.contains("nothing to break"), "{shown}");
}

#[test]
fn whoever_is_deaf_says_why_and_what_is_missed_is_marked_once() {
    let mut top = Top::new("locks.internal:5625");
    let now = Instant::now();
    top.press(key('4'));
    top.see(Ok(sight(server(), List::Events)), now);
    top.is_deaf("no coordinator answers".to_owned());
    let shown = screen(&top, now, Ink::rich(), (80, 10));
    assert!(shown.contains("what happens is not heard: no coordinator answers"), "{shown}");
    assert!(!shown.contains("nothing has happened"), "{shown}");
    top.is_listening();
    top.hear(&happened(0, Happening::Requested));
    top.is_deaf("the connection was lost".to_owned());
    top.is_deaf("no coordinator answers".to_owned());
    assert_eq!(top.rows().len(), 2, "an event, and one mark");
    top.is_listening();
    assert!(!screen(&top, now, Ink::rich(), (80, 10)).contains("not heard"));
}
