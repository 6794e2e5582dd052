//! Clients before several servers over real sockets, of which one leads (rule C5).

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;

use super::tests::{answers, nobody, read_message};
use super::{Client, Error, Observer, blocking};
use crate::types::{GoodbyeCode, RejectionCode, SERVER_ADDRESS_LEN_MAX};
use crate::wire::{self, ClientMessage, ServerMessage};

/// What a member does with a connection.
#[derive(Clone)]
enum Does {
    /// It says who leads, or that nobody does.
    Names(String),
    /// It leads.
    Leads,
    /// It says nothing.
    Waits,
}

/// A member of a cluster.
struct Member {
    address: String,
    /// Connections that were made to it.
    connections: Arc<AtomicUsize>,
}

impl Member {
    /// One that does this with its first connection, its second, and so on.
    fn start(does: impl Fn(usize) -> Does + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            let mut waiting = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                match does(counted.fetch_add(1, Ordering::Relaxed)) {
                    Does::Names(leader) => sends_on(stream, leader),
                    Does::Leads => drop(thread::spawn(move || serve(stream))),
                    Does::Waits => waiting.push(stream),
                }
            }
        });
        Self { address, connections }
    }

    fn always(does: Does) -> Self {
        Self::start(move |_| does.clone())
    }

    fn names(leader: &str) -> Self {
        Self::always(Does::Names(leader.to_owned()))
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn say(stream: &mut TcpStream, messages: &[ServerMessage]) {
    let mut bytes = BytesMut::new();
    for message in messages {
        wire::encode_frame(message, &mut bytes).unwrap();
    }
    // A client that has gone does not hear it.
    let _ = stream.write_all(&bytes);
}

fn sends_on(mut stream: TcpStream, leader: String) {
    let (code, rejection) = (GoodbyeCode::NotLeader, RejectionCode::NONE);
    read_message(&mut stream);
    say(&mut stream, &[ServerMessage::Goodbye { code, rejection, message: leader }]);
}

fn serve(mut stream: TcpStream) {
    while let Some(message) = read_message(&mut stream) {
        if !matches!(message, ClientMessage::Account(_)) {
            say(&mut stream, &answers(&message));
        }
    }
}

#[tokio::test]
async fn a_new_client_goes_on_to_the_leader_that_it_was_not_told_of() {
    let leader = Member::always(Does::Leads);
    let standby = Member::names(&leader.address);
    let client = Client::connect(&standby.address).await.unwrap();
    client.lock("printer").await.unwrap().release().await.unwrap();
    let observer = Observer::connect(&standby.address).await.unwrap();
    assert_eq!(observer.locks().await.unwrap().len(), 3);
    assert_eq!((standby.count(), leader.count()), (2, 2));
}

#[test]
fn blocking_code_goes_on_to_the_leader_too() {
    let leader = Member::always(Does::Leads);
    let standby = Member::names(&leader.address);
    let client = blocking::Client::connect(&standby.address).unwrap();
    client.lock("printer").acquire().unwrap().release().unwrap();
    assert_eq!(leader.count(), 1);
}

#[tokio::test]
async fn a_leader_that_is_named_and_cannot_be_reached_keeps_nobody_from_the_others() {
    // The one that it names is dead, and this it will learn.
    let standby = nobody();
    let leader = Member::always(Does::Leads);
    let first = Member::names(&standby);
    let servers = [&first.address, &leader.address];
    let client = Client::connect(servers).await.unwrap();
    client.close().await.unwrap();
    assert_eq!(leader.count(), 1);
}

#[tokio::test]
async fn who_comes_while_nobody_leads_is_welcome_once_somebody_does() {
    let standby = Member::start(|connection| match connection {
        0..3 => Does::Names(String::new()),
        _ => Does::Leads,
    });
    let client = Client::connect([&nobody(), &standby.address]).await.unwrap();
    client.close().await.unwrap();
    assert!(standby.count() >= 4);
}

#[tokio::test]
async fn who_finds_no_leader_in_time_is_told_what_each_server_says() {
    let (dead, standby) = (nobody(), Member::names(""));
    let builder = Client::builder().connect_timeout(Duration::from_secs(1));
    let error = builder.connect([&dead, &standby.address]).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { .. }) && error.is_retryable());
    let told = error.to_string();
    let refused = format!("{dead}: connection refused");
    let knows = format!("{}: it does not lead and knows nobody who does", standby.address);
    assert!(told.starts_with("no coordinator leads at "), "{told}");
    assert!(told.contains(&refused) && told.contains(&knows), "{told}");
}

#[tokio::test]
async fn of_servers_that_cannot_be_reached_each_is_told_with_its_reason() {
    let (one, other) = (nobody(), nobody());
    let told = Client::connect([&one, &other]).await.unwrap_err().to_string();
    let each = format!("({one}: connection refused; {other}: connection refused)");
    assert!(told.contains(&each), "{told}");
}

#[tokio::test]
async fn two_members_that_name_each_other_are_an_error_and_no_storm() {
    let (one, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), nobody());
    drop(one);
    let first = Member::names(&other);
    let second = Member::names(&first.address);
    let builder = Client::builder().connect_timeout(Duration::from_millis(400));
    let error = builder.connect([&first.address, &second.address]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }));
    // Four in a row, and then a pause, of 25 ms at least and then longer.
    let count = first.count() + second.count();
    assert!(count <= 5 * 8, "{count} connections");
}

#[tokio::test]
async fn what_a_liar_says_is_no_address_and_is_not_shown() {
    let longest = format!("{}:1", "x".repeat(SERVER_ADDRESS_LEN_MAX));
    for hint in ["\u{1b}[2Jevil:1", &longest, &"x".repeat(10_000), "a:1,b:2"] {
        let liar = Member::names(hint);
        let builder = Client::builder().connect_timeout(Duration::from_millis(500));
        let told = builder.connect(&liar.address).await.unwrap_err().to_string();
        assert!(told.contains("names what is no address"), "{told}");
        assert!(!told.contains(hint) && told.len() < 300, "{told}");
    }
}

#[tokio::test]
async fn of_servers_that_do_not_welcome_us_in_time_each_is_told() {
    let (dead, one, other) = (nobody(), Member::always(Does::Waits), Member::always(Does::Waits));
    let builder = Client::builder().connect_timeout(Duration::from_millis(1_500));
    let servers = [&dead, &one.address, &other.address];
    let told = builder.connect(servers).await.unwrap_err().to_string();
    assert!(told.starts_with("no coordinator answers at "), "{told}");
    assert!(told.contains(&format!("{dead}: connection refused")), "{told}");
    for member in [&one, &other] {
        let waits = format!("{}: connected, but not welcomed", member.address);
        assert!(told.contains(&waits), "{told}");
    }
}

#[tokio::test]
async fn what_a_server_has_said_is_told_though_it_says_nothing_at_last() {
    let nobody_leads =
        |connection| if connection == 0 { Does::Names(String::new()) } else { Does::Waits };
    let (dead, standby) = (nobody(), Member::start(nobody_leads));
    let builder = Client::builder().connect_timeout(Duration::from_millis(1_500));
    let told = builder.connect([&dead, &standby.address]).await.unwrap_err().to_string();
    assert!(told.contains(&format!("{}: it does not lead", standby.address)), "{told}");
    assert!(standby.count() > 1, "it was asked once");
}

#[tokio::test]
async fn a_member_that_does_not_answer_leaves_time_for_the_others() {
    let (mute, leader) = (Member::always(Does::Waits), Member::always(Does::Leads));
    let builder = Client::builder().connect_timeout(Duration::from_secs(3));
    let client = builder.connect([&mute.address, &leader.address]).await.unwrap();
    client.close().await.unwrap();
}
