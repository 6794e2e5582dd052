//! Encrypted connections of the real program: both ports, every command, and what users read when something
//! does not fit.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use coordinator::{Client, Servers, TlsOptions};
use rustix::process::Signal;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

use crate::certificates::Authority;
use crate::support::{Done, Home, Server, eventually, run, start};
use crate::watchdog::watchdog_on_duty;

/// A coordinator that speaks TLS, and the authority of its certificate.
struct Secure {
    server: Server,
    authority: Authority,
}

/// Flags of a server that asks clients for certificates, or does not.
fn flags(home: &Home, is_mutual: bool) -> Vec<String> {
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    let mut flags = vec!["--tls-cert".to_owned(), path("server.pem")];
    flags.extend(["--tls-key".to_owned(), path("server.key")]);
    if is_mutual {
        flags.extend(["--tls-client-ca".to_owned(), path("ca.pem")]);
    }
    flags
}

impl Secure {
    /// One that is durable, with other flags besides.
    fn start(is_mutual: bool, more: &[&str]) -> Self {
        let home = Home::new();
        let authority = Authority::new(&home.path("ca.pem"));
        let certify = |name: &str, names: &[&str]| {
            let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
            authority.issue(names, &home.path(&cert), &home.path(&key));
        };
        certify("server", &["127.0.0.1", "locks.internal"]);
        certify("client", &["client.internal"]);
        let mut flags = flags(&home, is_mutual);
        flags.extend(more.iter().map(ToString::to_string));
        // Its log is read by some tests.
        let line = "exec \"$0\" serve --listen 127.0.0.1:0 --port-file port \"$@\" 2>log";
        let mut command = home.command("sh");
        command.current_dir(home.path(".")).args(["-c", line, env!("CARGO_BIN_EXE_coordinator")]);
        command.args(flags);
        Self { server: Server::start_by_command(home, command), authority }
    }

    fn address(&self) -> String {
        format!("tls://{}", self.server.address)
    }

    /// A command that trusts the authority; with its own certificate, if it has one.
    fn run(&self, words: &[&str], has_certificate: bool) -> Done {
        run(self.command(words, has_certificate))
    }

    fn command(&self, words: &[&str], has_certificate: bool) -> std::process::Command {
        let home = &self.server.home;
        let mut command = home.coordinator(words);
        command.env("COORDINATOR_SERVER", self.address());
        command.env("COORDINATOR_SERVER_CA", home.path("ca.pem"));
        if has_certificate {
            command.env("COORDINATOR_CLIENT_CERT", home.path("client.pem"));
            command.env("COORDINATOR_CLIENT_KEY", home.path("client.key"));
        }
        command
    }
}

#[test]
fn every_command_works_over_mutual_tls() {
    let secure = Secure::start(true, &[]);
    let nested = secure.server.home.script(
        "nested",
        &format!("#!/bin/sh\n{} status --json demo\n", env!("CARGO_BIN_EXE_coordinator")),
    );
    let locked = secure.run(&["lock", "demo", "--", &nested], true);
    assert_eq!(locked.code(), Some(0), "{}", locked.err);
    // Its command was told how to reach the coordinator, too.
    assert!(locked.out.contains("\"demo\""), "{}", locked.out);
    for words in [
        &["try", "demo", "--", "true"][..],
        &["status"],
        &["ping"],
        &["bench", "--pairs", "50", "--quiet"],
        &["status", "--waits"],
    ] {
        let done = secure.run(words, true);
        assert_eq!(done.code(), Some(0), "{words:?}: {}", done.err);
    }
}

#[test]
fn flags_say_whom_to_trust_and_reach_the_command_and_its_children() {
    let secure = Secure::start(true, &[]);
    let home = &secure.server.home;
    let program = env!("CARGO_BIN_EXE_coordinator");
    let inner = home.script("inner", &format!("#!/bin/sh\nexec {program} ping\n"));
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let address = secure.address();
    let words = [
        "lock",
        "--server",
        &address,
        "--server-ca",
        &ca,
        "--client-cert",
        &cert,
        "--client-key",
        &key,
        "demo",
        "--",
        &inner,
    ];
    let done = run(home.coordinator(&words));
    assert_eq!(done.code(), Some(0), "{}", done.err);
}

#[test]
fn a_lock_of_a_killed_client_is_released_over_tls_too() {
    let secure = Secure::start(true, &[]);
    // Whatever directory the watchdog is in.
    let held = ["lock", "--ttl", "60s", "demo", "--", "sleep", "60"];
    let mut command = secure.command(&held, true);
    command.current_dir(secure.server.home.path("."));
    command.env("COORDINATOR_SERVER_CA", "ca.pem").env("COORDINATOR_SERVER_NAME", "");
    command
        .env("COORDINATOR_CLIENT_CERT", "client.pem")
        .env("COORDINATOR_CLIENT_KEY", "client.key");
    let holder = start(command);
    watchdog_on_duty(&holder);
    holder.signal(Signal::KILL);
    // The watchdog says so, long before the lease ends.
    let next = secure.run(&["lock", "-w", "20", "demo", "--", "true"], true);
    assert_eq!(next.code(), Some(0), "{}", next.err);
}

#[test]
fn a_client_learns_what_does_not_fit() {
    let secure = Secure::start(true, &[]);
    let home = &secure.server.home;
    let told = |command: std::process::Command| {
        let done = run(command);
        assert!(matches!(done.code(), Some(69 | 76)), "{}", done.err);
        done.err
    };
    let without = told(secure.command(&["ping"], false));
    assert!(without.contains("it wants a certificate of its clients"), "{without}");
    assert!(without.contains("hint: --server-ca says whom to trust"), "{without}");

    let stranger = Authority::new(&home.path("other.pem"));
    let mut command = secure.command(&["ping"], true);
    command.env("COORDINATOR_SERVER_CA", home.path("other.pem"));
    let untrusted = told(command);
    assert!(untrusted.contains("trusted here"), "{untrusted}");

    stranger.issue(&["client.internal"], &home.path("client.pem"), &home.path("client.key"));
    let refused = told(secure.command(&["ping"], true));
    assert!(refused.contains("it refused our certificate"), "{refused}");

    let mut command = secure.command(&["ping"], false);
    command.env("COORDINATOR_SERVER_NAME", "db.internal");
    let misnamed = told(command);
    assert!(misnamed.contains("is not for db.internal: it is for"), "{misnamed}");

    let mut command = secure.command(&["ping"], false);
    command.env("COORDINATOR_SERVER", &secure.server.address);
    let plain = told(command);
    assert!(plain.contains("it speaks TLS: write tls:// before its address"), "{plain}");

    let plain_server = Server::start();
    let mut command = secure.command(&["ping"], false);
    command.env("COORDINATOR_SERVER", format!("tls://{}", plain_server.address));
    let other_way_round = told(command);
    assert!(other_way_round.contains("leave tls:// out"), "{other_way_round}");

    // A mistake of ours is none of a coordinator's.
    let mut command = secure.command(&["ping"], true);
    command.env("COORDINATOR_CLIENT_KEY", home.path("server.key"));
    let done = run(command);
    assert_eq!(done.code(), Some(2), "{}", done.err);
    assert!(done.err.contains("was made: the key in "), "{}", done.err);
}

#[test]
fn settings_that_would_encrypt_less_than_they_read_are_refused() {
    let home = Home::new();
    for (words, told) in [
        (&["serve", "--tls-cert", "a"][..], "tls-cert says nothing without tls-key"),
        (&["serve", "--tls-client-ca", "a"], "tls-client-ca says nothing without tls-cert"),
        (&["serve", "--tls-crl", "a"], "says nothing without tls-client-ca"),
        (&["ping", "--client-key", "a"], "client-key says nothing without client-cert"),
        (&["serve", "--tls-client-ca", ""], "tls-client-ca is empty"),
        (&["ping", "--server-ca", ""], "server-ca is empty"),
        (&["serve", "--tls-cert", "/none.pem", "--tls-key", "/none"], "cannot read /none.pem"),
    ] {
        let done = run(home.coordinator(words));
        assert_eq!(done.code(), Some(2), "{words:?}: {}", done.err);
        assert!(done.err.contains(told), "{}", done.err);
    }
}

#[test]
fn a_renewed_certificate_is_shown_after_a_sighup_and_open_connections_go_on() {
    let secure = Secure::start(false, &[]);
    let home = &secure.server.home;
    let runtime = Runtime::new().unwrap();
    let servers =
        Servers::from(secure.address()).tls(TlsOptions::new().server_ca(home.path("ca.pem")));
    let client = runtime.block_on(Client::connect(&servers)).unwrap();
    let guard = runtime.block_on(client.lock("demo").into_future()).unwrap();

    let (cert, key) = (home.path("server.pem"), home.path("server.key"));
    secure.authority.issue(&["renewed.internal"], &cert, &key);
    secure.server.process.signal(Signal::HUP);
    eventually("the new one is shown", || {
        secure.run(&["ping"], false).err.contains("it is for").then_some(())
    });
    let named = secure.run(&["ping", "--server-name", "renewed.internal"], false);
    assert_eq!(named.code(), Some(0), "{}", named.err);

    // A mistake changes nothing.
    fs::write(&key, "nonsense").unwrap();
    secure.server.process.signal(Signal::HUP);
    let told = || {
        let log = fs::read_to_string(home.path("log")).unwrap();
        log.lines()
            .find(|line| line.contains("nothing changed, for a mistake in the certificates"))
            .map(str::to_owned)
    };
    let line = eventually("the mistake is told", told);
    assert!(line.contains("server.key has no private key"), "{line}");
    let named = secure.run(&["ping", "--server-name", "renewed.internal"], false);
    assert_eq!(named.code(), Some(0), "{}", named.err);
    assert!(guard.is_held());
    runtime.block_on(guard.release()).unwrap();
}

#[test]
fn whoever_says_nothing_in_a_handshake_is_cut_off() {
    let secure = Secure::start(false, &["--handshake-timeout", "1s"]);
    for begun in [&b""[..], &[0x16], &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]] {
        let mut stream = TcpStream::connect(&secure.server.address).unwrap();
        stream.write_all(begun).unwrap();
        let mut rest = Vec::new();
        // Whatever it is told, the connection ends.
        let _ = stream.read_to_end(&mut rest);
    }
    // On a busy machine, its handshake may take as long.
    eventually("others are served", || {
        (secure.run(&["ping"], false).code() == Some(0)).then_some(())
    });
}

/// A socket with this address of this machine.
fn socket_at(address: [u8; 4]) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((address, 0).into())?;
    Ok(socket)
}

#[test]
fn an_address_whose_handshakes_go_on_and_on_shuts_out_nobody_but_itself() {
    let secure = Secure::start(false, &["--handshake-timeout", "5m"]);
    let home = &secure.server.home;
    let log = || fs::read_to_string(home.path("log")).unwrap();
    let address = secure.server.address.clone();
    // They begin a handshake, and say no more.
    let begun = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    let greedy: Vec<TcpStream> = (0..65)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(&begun).unwrap();
            stream
        })
        .collect();
    let told = "handshake waits: 64 with its address are under way";
    eventually("one of them waits", || log().contains(told).then_some(()));
    let line = log().lines().find(|line| line.contains(told)).unwrap().to_owned();
    assert!(line.contains("WARN") && line.contains("peer=127.0.0.1:"), "{line}");
    // Another address is served meanwhile.
    Runtime::new().unwrap().block_on(async {
        let socket = socket_at([127, 0, 0, 2]).unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        let options = TlsOptions::new().server_ca(home.path("ca.pem"));
        options.secure(stream, "127.0.0.1").await.unwrap();
    });
    // Its own wait until one of the others is gone.
    let waiting =
        start(secure.command(&["ping", "--count", "1", "--connect-timeout", "1m"], false));
    eventually("it waits, too", || (log().matches(told).count() > 1).then_some(()));
    drop(greedy);
    let done = waiting.end();
    assert_eq!(done.code(), Some(0), "{}", done.err);
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let secure = Secure::start(false, &[]);
    let home = &secure.server.home;
    let log = || fs::read_to_string(home.path("log")).unwrap();
    // Another thread writes the log.
    eventually("it is warned of", || log().contains("others can read the key").then_some(()));
    let private = Home::new();
    let authority = Authority::new(&private.path("ca.pem"));
    let (cert, key) = (private.path("server.pem"), private.path("server.key"));
    authority.issue(&["127.0.0.1"], &cert, &key);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let flags = flags(&private, false);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start_with(private, &[&["--ephemeral"], &flags[..]].concat());
    server.process.signal(Signal::TERM);
    let told = server.process.end().err;
    assert!(!told.contains("others can read the key"), "{told}");
}
