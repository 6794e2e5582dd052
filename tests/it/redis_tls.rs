//! The Redis dialect over TLS: who speaks it is told to be trusted, by what the lock port has, too.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::certificates::Authority;
use crate::support::{DEADLINE, Home, Server, eventually};

/// A coordinator with a certificate, whose clients have others.
struct Secure {
    server: Server,
}

/// A client of the dialect over TLS.
struct Redis(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Secure {
    /// Its authority has signed for each of these names.
    fn start(names: &[&str], more: &[&str]) -> Self {
        let home = Home::new();
        let authority = Authority::new(&home.path("ca.pem"));
        authority.issue(&["127.0.0.1"], &home.path("server.pem"), &home.path("server.key"));
        for name in names {
            let file = |end: &str| home.path(&format!("{name}.{end}"));
            authority.issue(&[&format!("{name}.internal")], &file("pem"), &file("key"));
        }
        let rules = |name: &str| {
            format!(
                "[[principal]]\nname = \"{name}\"\ncertificates = [\"dns:{name}.internal\"]\n\
                 may = [ {{ do = [\"lock\", \"see\"], names = [\"{name}/*\"] }} ]\n"
            )
        };
        let file = home.path("access.toml");
        fs::write(&file, names.iter().map(|name| rules(name)).collect::<String>()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let line = "exec \"$0\" serve --listen 127.0.0.1:0 --redis-listen 127.0.0.1:0 --port-file port \
                    --tls-cert server.pem --tls-key server.key \"$@\" 2>log";
        let mut command = home.command("sh");
        command.current_dir(home.path(".")).args(["-c", line, env!("CARGO_BIN_EXE_coordinator")]);
        command.args(more);
        Self { server: Server::start_by_command(home, command) }
    }

    fn dial(&self) -> TcpStream {
        let log = self.server.home.path("log");
        let address = eventually("the log tells the port", || {
            let log = fs::read_to_string(&log).ok()?;
            let address = log.split("the Redis dialect on ").nth(1)?.split([',', ' ']).next()?;
            Some(address.to_owned())
        });
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A client that trusts this authority, and has the certificate of a name, if it has one.
    fn connect(&self, name: Option<&str>) -> Redis {
        let file = |name: &str, end: &str| self.server.home.path(&format!("{name}.{end}"));
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&file("ca", "pem")).remove(0)).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match name {
            None => config.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(file(name, "key")).unwrap();
                config.with_client_auth_cert(certificates(&file(name, "pem")), key).unwrap()
            }
        };
        let server = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(Arc::new(config), server).unwrap();
        Redis(BufReader::new(StreamOwned::new(tls, self.dial())))
    }
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect()
}

impl Redis {
    /// One answer, of one line; nothing if the connection has ended.
    fn say(&mut self, line: &str) -> String {
        let mut answer = String::new();
        if self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).is_ok() {
            let _of_a_closed_one = self.0.read_line(&mut answer);
        }
        answer.trim_end().to_owned()
    }
}

#[test]
fn redis_over_tls_takes_the_same_locks_and_whoever_does_not_speak_tls_hears_no_answer() {
    let secure = Secure::start(&[], &["--ephemeral"]);
    let (mut first, mut second) = (secure.connect(None), secure.connect(None));
    assert_eq!(first.say("SET order mine NX PX 600000"), "+OK");
    assert_eq!(second.say("SET order yours NX PX 600000"), "$-1");
    let many: String = (0..2_000).map(|_| "PING\r\n").collect();
    first.0.get_mut().write_all(many.as_bytes()).unwrap();
    let mut heard = vec![0; many.len() / 6 * 7];
    first.0.read_exact(&mut heard).unwrap();
    assert_eq!(heard, b"+PONG\r\n".repeat(2_000));

    let mut plain = secure.dial();
    plain.write_all(b"PING\r\n").unwrap();
    let mut rest = Vec::new();
    let _closed_or_reset = plain.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"+PONG"), "{rest:?}");
    assert_eq!(first.say("DEL order"), ":1");
}

#[test]
fn a_certificate_says_who_a_client_of_redis_is_and_without_one_nobody_comes_in() {
    let mutual = ["--tls-client-ca", "ca.pem", "--access-file", "access.toml", "--ephemeral"];
    let secure = Secure::start(&["ann", "bob"], &mutual);
    let (mut ann, mut bob) = (secure.connect(Some("ann")), secure.connect(Some("bob")));
    assert_eq!(ann.say("SET ann/order mine NX PX 600000"), "+OK");
    assert_eq!(bob.say("SET bob/order mine NX PX 600000"), "+OK");
    for line in ["SET ann/order yours NX", "DEL ann/order", "COORDINATOR.WAIT ann/order yours"] {
        assert!(bob.say(line).starts_with("-NOPERM"), "{line}");
    }
    assert_eq!(secure.connect(None).say("PING"), "", "it has no certificate");
    assert_eq!(ann.say("DEL ann/order"), ":1");
}
