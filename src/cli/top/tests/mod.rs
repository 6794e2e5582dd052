//! Screens as text: what was seen and which keys came, and what stands there then. The files in `screens/` are
//! written by `UPDATE_GOLDENFILES=1 cargo test top::` and judged by people.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coordinator::{Event, Happened};

use coordinator::types::{
    Claim, Epoch, FencingToken, Identity, LockName, Mode as LockMode, Note, OwnerId, RequestId,
    SessionId,
};
use coordinator::wire::{
    Happening, Holder, LockStatus, ServerStatus, SessionStatus, WaitedStatus, Waiter,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::columns::{Column, grouped, lay_out};
use super::draw::{Ink, draw, text_of};
use super::heard::EVENTS_MAX;
use super::look::{List, Sight, Wanted};
use super::model::{Mode, Order, Top};
use super::waited::Span;

mod missing;

fn server() -> ServerStatus {
    ServerStatus {
        version: "0.1.0".to_owned(),
        epoch: Epoch::new(18),
        uptime_ms: 11_520_000,
        draining: false,
        connections: 1_210,
        sessions: 1_204,
        locks: 3,
        held: 4,
        waiting: 8,
        grants: 5_000_000,
        expired: 3,
        protocol_errors: 0,
        slow_readers: 0,
        handshake_timeouts: 0,
        connections_refused: 0,
        last_token: FencingToken::new(1881),
        grace_ms: 0,
        unsaved_ms: 0,
    }
}

fn holder(identity: &str, token: u64, held_ms: u64, note: &str) -> Holder {
    Holder {
        session: SessionId::new(u128::from(token)),
        identity: Identity::new(identity).unwrap(),
        peer: "10.0.0.7:51234".to_owned(),
        owner: OwnerId::NONE,
        request: RequestId::new(1),
        mode: LockMode::Exclusive,
        token: FencingToken::new(token),
        held_ms,
        note: Note::new(note).unwrap(),
        connected: true,
    }
}

fn waiter(identity: &str, waiting_ms: u64) -> Waiter {
    Waiter {
        session: SessionId::new(u128::from(waiting_ms)),
        identity: Identity::new(identity).unwrap(),
        peer: "10.0.0.8:40000".to_owned(),
        owner: OwnerId::NONE,
        request: RequestId::new(2),
        mode: LockMode::Exclusive,
        waiting_ms,
        note: Note::new("").unwrap(),
    }
}

fn lock(name: &str, holders: Vec<Holder>, waiters: Vec<Waiter>) -> LockStatus {
    LockStatus {
        name: LockName::new(name).unwrap(),
        holder_count: holders.len() as u64,
        holders,
        waiter_count: waiters.len() as u64,
        waiters,
    }
}

fn locks() -> Vec<LockStatus> {
    let ci = "ci-7 (ann@build7, pid 8123)";
    let mut readers = lock(
        "config/prices",
        vec![
            Holder { mode: LockMode::Shared, ..holder("web-1", 1702, 3_000, "") },
            Holder { mode: LockMode::Shared, connected: false, ..holder("web-2", 1703, 2_000, "") },
        ],
        vec![waiter("importer", 1_500)],
    );
    readers.holder_count = 41;
    vec![
        lock("nightly-report", vec![holder("cron@db1:77", 1650, 61_000, "")], vec![waiter("x", 9)]),
        lock(
            "deploy",
            vec![holder(ci, 1881, 252_000, "deploy v2.3")],
            [238_000, 120_000, 61_000, 5_000, 250]
                .map(|ms| waiter(&format!("bob@build8:{ms}"), ms))
                .to_vec(),
        ),
        readers,
    ]
}

fn sessions() -> Vec<SessionStatus> {
    let session = |number, identity: &str, connected, waiting| SessionStatus {
        session: SessionId::new(number),
        identity: Identity::new(identity).unwrap(),
        peer: "10.0.0.7:51234".to_owned(),
        connected,
        age_ms: 60_000 * u64::try_from(number).unwrap(),
        ttl_ms: 10_000,
        lease_left_ms: 8_200,
        held: 1,
        waiting,
    };
    vec![session(1, "ann@build7:8123", true, 0), session(2, "bob@build8:12", false, 3)]
}

/// A screen on which something was seen.
fn seen(list: List) -> (Top, Instant) {
    let (mut top, now) = (Top::new("locks.internal:5625"), Instant::now());
    match list.answers() {
        Wanted::Waits => {}
        Wanted::Locks => drop(top.press(key('2'))),
        Wanted::Sessions => drop(top.press(key('3'))),
        Wanted::Events => drop(top.press(key('4'))),
        Wanted::Lock(_) => unreachable!("looked into by a key"),
    }
    top.see(Ok(sight(server(), list)), now);
    (top, now)
}

fn sight(server: ServerStatus, list: List) -> Sight {
    Sight { server, list, waited: None, breakable: None, outlooks: Vec::new() }
}

fn key(letter: char) -> KeyEvent {
    KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE)
}

fn press(top: &mut Top, code: KeyCode) -> Order {
    top.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(top: &mut Top, text: &str) {
    text.chars().for_each(|letter| drop(top.press(key(letter))));
}

fn screen(top: &Top, now: Instant, ink: Ink, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(top, now, ink, frame.area(), frame.buffer_mut())).unwrap();
    text_of(terminal.backend().buffer())
}

/// Compares a screen with its file.
fn assert_screen(name: &str, top: &Top, now: Instant, size: (u16, u16)) {
    assert_shown(name, &screen(top, now, Ink::rich(), size));
}

fn assert_shown(name: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cli/top/screens").join(name);
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(&path, shown).unwrap();
    }
    let told = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(told, shown, "{name}: UPDATE_GOLDENFILES=1 writes it");
}

#[test]
fn whoever_has_waited_longest_is_on_top() {
    let (top, now) = seen(List::Waits(locks()));
    assert_screen("waits.txt", &top, now, (80, 24));
    assert_screen("waits_wide.txt", &top, now, (200, 12));
    assert_screen("waits_narrow.txt", &top, now, (40, 10));
}

#[test]
fn each_list_has_its_columns() {
    let (top, now) = seen(List::Locks(locks()));
    assert_screen("locks.txt", &top, now, (100, 12));
    let (top, now) = seen(List::Sessions(sessions()));
    assert_screen("sessions.txt", &top, now, (100, 12));
}

#[test]
fn where_nobody_waits_that_is_said() {
    let (top, now) = seen(List::Waits(Vec::new()));
    assert_screen("nobody_waits.txt", &top, now, (80, 10));
}

#[test]
fn a_list_that_nobody_could_read_is_not_fetched_and_that_is_said() {
    let (top, now) = seen(List::TooMany(Wanted::Locks));
    assert_screen("too_many.txt", &top, now, (100, 10));
}

#[test]
fn what_is_old_is_not_called_live() {
    let (mut top, now) = seen(List::Waits(locks()));
    assert!(screen(&top, now, Ink::rich(), (80, 10)).contains("live\n"));
    let later = now + Duration::from_secs(12);
    assert!(screen(&top, later, Ink::rich(), (80, 10)).contains("STALE for 12s\n"));
    top.see(Err("no coordinator answers at locks.internal:5625".to_owned()), later);
    assert_screen("stale.txt", &top, later, (80, 10));
    top.see(Ok(sight(server(), List::Waits(locks()))), later);
    assert!(screen(&top, later, Ink::rich(), (80, 10)).contains("live\n"));
}

#[test]
fn where_nothing_was_seen_yet_nothing_is_shown() {
    let mut top = Top::new("locks.internal:5625");
    let now = Instant::now();
    assert!(screen(&top, now, Ink::rich(), (80, 10)).contains("connecting"));
    top.see(Err("no answer".to_owned()), now);
    assert!(screen(&top, now, Ink::rich(), (80, 10)).contains("nothing seen yet"));
}

#[test]
fn what_an_operator_must_know_first_is_said_above_the_table() {
    let (mut top, now) = seen(List::Waits(locks()));
    for (server, words) in [
        (ServerStatus { draining: true, ..server() }, "it stops"),
        (ServerStatus { unsaved_ms: 90_000, ..server() }, "cannot be saved for 1m30s"),
        (ServerStatus { grace_ms: 7_000, ..server() }, "grace period, 7s left"),
    ] {
        top.see(Ok(sight(server, List::Waits(locks()))), now);
        assert!(screen(&top, now, Ink::rich(), (80, 24)).contains(words), "{words}");
    }
}

#[test]
fn grants_a_second_are_those_of_one_run() {
    let (mut top, now) = seen(List::Waits(locks()));
    let after = |ms, grants, epoch| ServerStatus {
        uptime_ms: server().uptime_ms + ms,
        grants: server().grants + grants,
        epoch: Epoch::new(epoch),
        ..server()
    };
    let mut see = |server| top.see(Ok(sight(server, List::Waits(locks()))), now);
    see(after(1_000, 41_230, 18));
    see(after(2_000, 61_230, 18));
    see(ServerStatus { grants: 3, uptime_ms: 500, ..after(0, 0, 19) });
    see(ServerStatus { grants: 13, uptime_ms: 1_500, ..after(0, 0, 19) });
    assert_eq!(top.rates, [41_230, 20_000, 10]);
    assert_screen("rates.txt", &top, now, (80, 8));
}

#[test]
fn the_selection_stays_on_its_row_wherever_that_goes() {
    let (mut top, now) = seen(List::Waits(locks()));
    press(&mut top, KeyCode::Down);
    let selected = |top: &Top| {
        let rows = top.rows();
        rows.get(top.place(&rows)).map(|row| row.key.clone())
    };
    assert_eq!(selected(&top).as_deref(), Some("config/prices"));
    press(&mut top, KeyCode::Char('s'));
    press(&mut top, KeyCode::Char('s'));
    assert_eq!(selected(&top).as_deref(), Some("config/prices"), "by name it is the first");
    let without =
        locks().into_iter().filter(|lock| lock.name.as_str() != "config/prices").collect();
    top.see(Ok(sight(server(), List::Waits(without))), now);
    assert_eq!(selected(&top).as_deref(), Some("deploy"), "the next in its place");
    press(&mut top, KeyCode::End);
    press(&mut top, KeyCode::Down);
    assert_eq!(selected(&top).as_deref(), Some("nightly-report"), "there is an end");
}

#[test]
fn a_filter_shows_what_contains_it_in_any_column() {
    let (mut top, now) = seen(List::Waits(locks()));
    type_in(&mut top, "/WEB-");
    assert_screen("filtering.txt", &top, now, (80, 10));
    press(&mut top, KeyCode::Enter);
    assert_screen("filtered.txt", &top, now, (120, 10));
    press(&mut top, KeyCode::Esc);
    assert_eq!(top.rows().len(), 3);
}

#[test]
fn a_lock_that_is_looked_into_shows_all_holders_and_waiters() {
    let (mut top, now) = seen(List::Waits(locks()));
    assert_eq!(press(&mut top, KeyCode::Enter), Order::Look);
    assert_eq!(top.wanted(), Wanted::Lock("deploy".to_owned()));
    let list = |lock| List::Lock("deploy".to_owned(), lock);
    // An answer to what was asked before is for a list that is not shown any more.
    top.see(Ok(sight(server(), List::Waits(Vec::new()))), now);
    assert!(screen(&top, now, Ink::rich(), (80, 10)).contains("looking..."));
    top.see(Ok(sight(server(), list(locks().into_iter().nth(1)))), now);
    assert_screen("inside.txt", &top, now, (100, 12));
    top.see(Ok(sight(server(), list(None))), now);
    assert!(screen(&top, now, Ink::rich(), (80, 10)).contains("\"deploy\" is free"));
    assert_eq!(press(&mut top, KeyCode::Esc), Order::Look);
    assert_eq!(top.wanted(), Wanted::Waits);
}

#[test]
fn nothing_is_broken_before_its_name_is_typed_and_a_reason_given() {
    let (mut top, now) = seen(List::Waits(locks()));
    press(&mut top, KeyCode::Char('b'));
    assert_screen("break.txt", &top, now, (80, 24));
    assert_eq!(press(&mut top, KeyCode::Enter), Order::Nothing);
    type_in(&mut top, "deplo");
    assert_eq!(press(&mut top, KeyCode::Enter), Order::Nothing);
    assert!(screen(&top, now, Ink::rich(), (80, 24)).contains("that is not its name"));
    type_in(&mut top, "y");
    assert_eq!(press(&mut top, KeyCode::Enter), Order::Nothing, "there is no reason yet");
    type_in(&mut top, "ci-7 hangs");
    // Somebody newer has it by now: what was asked about is what is meant.
    let newer = lock("deploy", vec![holder("eve", 1900, 10, "")], vec![waiter("x", 9)]);
    top.see(Ok(sight(server(), List::Waits(vec![newer]))), now);
    assert_screen("break_now.txt", &top, now, (80, 24));
    let expected = Order::Break {
        name: "deploy".to_owned(),
        token: FencingToken::new(1881),
        reason: "ci-7 hangs".to_owned(),
    };
    assert_eq!(press(&mut top, KeyCode::Enter), expected);
    top.say("revoked \"deploy\" from the holder with token 1881".to_owned());
    assert!(screen(&top, now, Ink::rich(), (80, 24)).contains("revoked \"deploy\""));
}

#[test]
fn a_question_can_be_left_and_what_nobody_holds_is_not_asked_about() {
    let (mut top, _) = seen(List::Waits(locks()));
    type_in(&mut top, "bdeploy");
    press(&mut top, KeyCode::Esc);
    assert_eq!(top.press(key('q')), Order::Quit, "keys are keys again");
    let (mut top, now) = seen(List::Sessions(sessions()));
    press(&mut top, KeyCode::Char('b'));
    assert!(screen(&top, now, Ink::rich(), (80, 10)).contains("a session is nothing to break"));
}

fn happened(ms: u64, what: Happening) -> Event {
    let claim = Claim { name: LockName::new("deploy").unwrap(), mode: LockMode::Exclusive };
    Event::Happened(Happened {
        at_ms: 1_795_516_267_123 + ms,
        session: SessionId::new(1),
        identity: Identity::new("ann@build7:8123").unwrap(),
        request: RequestId::new(4),
        claims: vec![claim],
        what,
    })
}

#[test]
fn what_happens_is_shown_as_it_happens_with_the_newest_last() {
    let mut top = Top::new("locks.internal:5625");
    let now = Instant::now();
    assert_eq!(top.press(key('4')), Order::Look);
    assert!(top.listens());
    top.see(Ok(sight(server(), List::Events)), now);
    assert!(screen(&top, now, Ink::rich(), (80, 10)).contains("nothing has happened since"));
    top.hear(&happened(0, Happening::Requested));
    top.hear(&happened(1, Happening::Queued { position: 2 }));
    top.hear(&Event::Missed { count: 7 });
    top.hear(&happened(2_000, Happening::Granted { token: FencingToken::new(1881) }));
    assert_screen("events.txt", &top, now, (100, 10));
    // Whoever has gone up stays there, and at the end the newest is followed.
    let selected = |top: &Top| {
        let rows = top.rows();
        rows[top.place(&rows)].key.clone()
    };
    assert_eq!(selected(&top), "4");
    press(&mut top, KeyCode::Up);
    top.hear(&happened(3_000, Happening::Cancelled));
    assert_eq!(selected(&top), "3");
    press(&mut top, KeyCode::End);
    top.hear(&happened(4_000, Happening::Cancelled));
    assert_eq!(selected(&top), "6");
    // Its lock can be looked into, and whoever comes back is at the end again.
    press(&mut top, KeyCode::Enter);
    assert_eq!(top.wanted(), Wanted::Lock("deploy".to_owned()));
    press(&mut top, KeyCode::Esc);
    top.see(Ok(sight(server(), List::Events)), now);
    assert_eq!(selected(&top), "6");
    top.press(key('p'));
    assert!(!top.listens(), "nobody listens while it is paused");
    top.hear_no_more();
    assert!(screen(&top, now, Ink::rich(), (100, 12)).contains("nobody has listened for a while"));
}

#[test]
fn so_many_events_are_kept_and_the_oldest_goes() {
    let mut top = Top::new("locks.internal:5625");
    top.press(key('4'));
    top.see(Ok(sight(server(), List::Events)), Instant::now());
    for ms in 0..=EVENTS_MAX as u64 {
        top.hear(&happened(ms, Happening::Requested));
    }
    assert_eq!(top.rows().len(), EVENTS_MAX);
    assert_eq!(top.rows()[0].key, "2");
}

#[test]
fn who_may_not_break_hears_why_and_the_key_is_grey_from_then_on() {
    let (mut top, now) = seen(List::Waits(locks()));
    let style = |top: &Top| {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 140, 10));
        let area = buffer.area;
        draw(top, now, Ink::rich(), area, &mut buffer);
        let line = text_of(&buffer).lines().last().unwrap().to_owned();
        let x = u16::try_from(line.find("b break").unwrap()).unwrap();
        buffer.cell((x, 9)).unwrap().modifier
    };
    assert!(!style(&top).contains(Modifier::CROSSED_OUT));
    top.is_unable("not revoked: ann may not break \"deploy\"".to_owned());
    assert!(style(&top).contains(Modifier::CROSSED_OUT));
    assert!(screen(&top, now, Ink::rich(), (80, 10)).contains("ann may not break"));
    top.press(key('b'));
    assert!(
        screen(&top, now, Ink::rich(), (80, 10)).contains("may not break \"deploy\"; b asks again")
    );
    top.press(key('b'));
    assert!(screen(&top, now, Ink::rich(), (80, 24)).contains("type the lock's name"));
}

#[test]
fn where_no_rule_lets_one_break_the_key_is_grey_beforehand_and_no_question_comes() {
    let (mut top, now) = seen(List::Waits(locks()));
    let breakable = |may| Some(("deploy".to_owned(), may));
    top.see(
        Ok(Sight { breakable: breakable(false), ..sight(server(), List::Waits(locks())) }),
        now,
    );
    assert_eq!(top.selected_lock().as_deref(), Some("deploy"));
    assert_eq!(top.bar().unwrap(), "no rule lets you break \"deploy\"");
    top.press(key('b'));
    assert!(screen(&top, now, Ink::rich(), (80, 24)).contains("no rule lets you break \"deploy\""));
    top.press(key('b'));
    assert_eq!(top.mode, Mode::Browsing, "however often it is pressed");
    // Another lock is another question, and so are other rules.
    press(&mut top, KeyCode::Down);
    assert_eq!(top.bar(), None);
    press(&mut top, KeyCode::Up);
    top.see(Ok(Sight { breakable: breakable(true), ..sight(server(), List::Waits(locks())) }), now);
    assert_eq!(top.bar(), None);
}

#[test]
fn percentiles_of_waits_stand_below_the_rate_of_grants() {
    let (mut top, now) = seen(List::Waits(locks()));
    let mut see = |ms, grants, counts: [u64; 4]| {
        let bounds_us = vec![50, 1_000_000, 2_500_000];
        let waited = WaitedStatus { epoch: Epoch::new(18), bounds_us, counts: counts.to_vec() };
        let server = ServerStatus { uptime_ms: ms, grants, ..server() };
        let waited = Some(waited);
        top.see(Ok(Sight { waited, ..sight(server, List::Waits(locks())) }), now);
    };
    see(1_000, 1_000, [1_000, 0, 0, 0]);
    see(2_000, 42_230, [41_000, 1_000, 230, 0]);
    assert_screen("waited.txt", &top, now, (80, 24));
    assert_screen("waited_wide.txt", &top, now, (200, 12));
    assert_screen("waited_narrow.txt", &top, now, (40, 10));
    top.span = Span::Run;
    assert_screen("waited_once.txt", &top, now, (80, 8));
}

#[test]
fn a_paused_screen_says_so_and_goes_on_by_the_same_key() {
    let (mut top, now) = seen(List::Waits(locks()));
    assert_eq!(top.press(key('p')), Order::Nothing);
    assert!(top.is_paused());
    let later = now + Duration::from_secs(65);
    assert!(screen(&top, later, Ink::rich(), (80, 10)).contains("paused for 1m5s"));
    assert_eq!(top.press(key('p')), Order::Look);
}

#[test]
fn help_goes_by_any_key_and_control_keys_work_everywhere() {
    let (mut top, now) = seen(List::Waits(locks()));
    top.press(key('?'));
    assert_screen("help.txt", &top, now, (80, 24));
    assert_eq!(top.press(key('q')), Order::Nothing);
    let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
    top.press(key('b'));
    assert_eq!(top.press(control('z')), Order::Suspend);
    assert_eq!(top.press(control('c')), Order::Quit);
}

#[test]
fn a_locale_without_unicode_gets_ascii_and_texts_of_strangers_are_escaped() {
    let mut all = locks();
    all.push(lock("evil\u{202e}lock", vec![holder("a\u{200b}b", 1, 5, "")], vec![waiter("x", 1)]));
    let (mut top, now) = seen(List::Waits(all));
    top.press(key('b'));
    let shown = screen(&top, now, Ink::plain(), (100, 24));
    assert!(shown.is_ascii(), "{shown}");
    assert_shown("plain.txt", &shown);
}

#[test]
fn any_size_can_be_drawn() {
    let (mut top, now) = seen(List::Waits(locks()));
    for keys in ["", "?", "xb", "x/"] {
        type_in(&mut top, keys);
        for width in 0..60 {
            for height in 0..14 {
                // A backend of no size is none; what is drawn on one is nothing.
                if width > 0 && height > 0 {
                    screen(&top, now, Ink::rich(), (width, height));
                }
            }
        }
    }
}

#[test]
fn columns_give_way_in_their_order_and_numbers_are_never_cut() {
    let columns = [Column::text("A"), Column::number("N", 2), Column::number("M", 1)];
    let names = |room| -> Vec<&str> {
        let places = lay_out(&columns, &[20, 6, 6], room);
        places.iter().map(|place| columns[place.index].title).collect()
    };
    assert_eq!(names(60), ["A", "N", "M"]);
    assert_eq!(names(36), ["A", "N", "M"]);
    assert_eq!(names(35), ["A", "M"]);
    assert_eq!(names(27), ["A"]);
    let always = [Column::text("A"), Column::text("B"), Column::number("N", 0)];
    let widths = |room| -> Vec<u16> {
        lay_out(&always, &[30, 10, 6], room).iter().map(|place| place.width).collect()
    };
    assert_eq!(widths(60), [30, 10, 6]);
    assert_eq!(widths(44), [24, 10, 6]);
    assert_eq!(widths(30), [10, 10, 6]);
    assert_eq!(widths(20), [5, 5, 6]);
    assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}
