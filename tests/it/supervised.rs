//! What a supervisor is told, as systemd hears it: datagrams to a socket.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::support::{DEADLINE, Home, Running, start};

/// Longer than anything that is told.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// A coordinator and the socket on which it is listened to.
struct Supervised {
    home: Home,
    socket: UnixDatagram,
    server: Running,
}

impl Supervised {
    fn start(variables: &[(&str, &str)]) -> Self {
        let home = Home::new();
        let path = home.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        fs::write(home.path("config.toml"), "").unwrap();
        let mut serve = home.coordinator(&["serve", "--listen", "127.0.0.1:0", "--ephemeral"]);
        serve.arg("--config").arg(home.path("config.toml"));
        serve.env("NOTIFY_SOCKET", &path).envs(variables.iter().copied());
        let server = start(serve);
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { home, socket, server }
    }

    fn hear(&self) -> String {
        hear(&self.socket)
    }

    /// Waits for a datagram that begins like this.
    fn until(&self, beginning: &str) -> String {
        loop {
            let told = self.hear();
            if told.starts_with(beginning) {
                return told;
            }
        }
    }
}

fn hear(socket: &UnixDatagram) -> String {
    let mut told = [0; DATAGRAM_BYTES_MAX];
    let len = socket.recv(&mut told).unwrap();
    String::from_utf8_lossy(&told[..len]).into_owned()
}

#[test]
fn systemd_is_told_when_the_coordinator_is_ready_how_it_is_and_when_it_stops() {
    let supervised = Supervised::start(&[]);
    assert_eq!(supervised.hear(), "READY=1\nSTATUS=ready");
    assert_eq!(supervised.hear(), "STATUS=sessions 0, requests holding 0, waiting 0");
    supervised.server.signal(Signal::TERM);
    assert_eq!(supervised.hear(), "STOPPING=1\nSTATUS=draining, then stopping");
    assert_eq!(supervised.server.end().code(), Some(0));
}

#[test]
fn a_socket_without_a_file_is_told_as_well() {
    let home = Home::new();
    let name = format!("coordinator-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut serve = home.coordinator(&["serve", "--listen", "127.0.0.1:0", "--ephemeral"]);
    serve.env("NOTIFY_SOCKET", format!("@{name}"));
    let server = start(serve);
    assert_eq!(hear(&socket), "READY=1\nSTATUS=ready");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn signs_of_life_come_as_often_as_the_watchdog_wants_them() {
    let supervised = Supervised::start(&[("WATCHDOG_USEC", "60000")]);
    for _ in 0..3 {
        let told = supervised.until("WATCHDOG=1\n");
        assert_eq!(told, "WATCHDOG=1\nSTATUS=sessions 0, requests holding 0, waiting 0");
    }
}

#[test]
fn a_watchdog_of_another_process_gets_no_sign_of_life() {
    let supervised = Supervised::start(&[("WATCHDOG_USEC", "60000"), ("WATCHDOG_PID", "1")]);
    assert_eq!(supervised.hear(), "READY=1\nSTATUS=ready");
    assert!(supervised.hear().starts_with("STATUS="));
    supervised.server.signal(Signal::TERM);
    loop {
        let told = supervised.hear();
        assert!(!told.contains("WATCHDOG"), "{told}");
        if told.starts_with("STOPPING=1\n") {
            break;
        }
    }
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end() {
    let supervised = Supervised::start(&[]);
    supervised.until("STATUS=");
    for settings in ["log = \"warn\"\n", "a mistake"] {
        fs::write(supervised.home.path("config.toml"), settings).unwrap();
        let before = clock_gettime(ClockId::Monotonic);
        supervised.server.signal(Signal::HUP);
        let told = supervised.until("RELOADING=1\nMONOTONIC_USEC=");
        let since = told.lines().nth(1).unwrap().split_once('=').unwrap().1;
        let before = i128::from(before.tv_sec) * 1_000_000 + i128::from(before.tv_nsec) / 1_000;
        assert!(
            since.parse::<i128>().unwrap() >= before,
            "systemd waits for one of after its signal"
        );
        assert_eq!(supervised.hear(), "READY=1\nSTATUS=ready", "whatever came of it");
    }
}
