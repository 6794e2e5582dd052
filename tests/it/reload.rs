//! One transaction by SIGHUP: settings, certificates and access file change together or not at all.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::certificates::Authority;
use crate::support::{Done, Home, Server, eventually, run};

/// Writes a file for its owner only.
fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A coordinator with TLS, an access file and a log filter, all of which can change.
struct Whole {
    server: Server,
    authority: Authority,
}

impl Whole {
    fn start() -> Self {
        let home = Home::new();
        let authority = Authority::new(&home.path("ca.pem"));
        let certify = |name: &str, names: &[&str]| {
            let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
            authority.issue(names, &home.path(&cert), &home.path(&key));
            let key = home.path(&key);
            let text = fs::read_to_string(&key).unwrap();
            private(&key, &text);
        };
        certify("server", &["127.0.0.1", "locks.internal"]);
        certify("other", &["127.0.0.1", "other.internal"]);
        certify("client", &["client.internal"]);
        private(&home.path("access.toml"), &allowing("old"));
        let dir = home.path(".");
        private(&home.path("c.toml"), &settings(&dir, "server", "access.toml", "info"));
        let line = "exec \"$0\" serve --config c.toml --listen 127.0.0.1:0 --port-file port 2>log";
        let mut command = home.command("sh");
        command.current_dir(&dir).args(["-c", line, env!("CARGO_BIN_EXE_coordinator")]);
        Self { server: Server::start_by_command(home, command), authority }
    }

    fn write(&self, name: &str, text: &str) {
        private(&self.server.home.path(name), text);
    }

    fn configure(&self, cert: &str, access: &str, log: &str) {
        self.write("c.toml", &settings(&self.server.home.path("."), cert, access, log));
    }

    /// Reloads, and waits for so many lines about it.
    fn reload(&self, lines: usize) -> String {
        self.server.process.signal(Signal::HUP);
        eventually("the reload is told", || {
            let log = fs::read_to_string(self.server.home.path("log")).unwrap();
            let told = |line: &&str| {
                line.contains("SIGHUP: reloaded") || line.contains("SIGHUP: nothing changed")
            };
            let told: Vec<&str> = log.lines().filter(told).collect();
            (told.len() == lines).then(|| told[lines - 1].to_owned())
        })
    }

    /// Takes a lock, of a server that has to show this name.
    fn take(&self, lock: &str, name: &str) -> Done {
        let home = &self.server.home;
        let mut command = home.coordinator(&["try", lock, "--", "true"]);
        command.env("COORDINATOR_SERVER", format!("tls://{}", self.server.address));
        command.env("COORDINATOR_SERVER_NAME", name);
        for (key, file) in
            [("SERVER_CA", "ca.pem"), ("CLIENT_CERT", "client.pem"), ("CLIENT_KEY", "client.key")]
        {
            command.env(format!("COORDINATOR_{key}"), home.path(file));
        }
        run(command)
    }

    /// Which of two locks may be taken, and which of two certificates is shown.
    fn holds(&self) -> (&'static str, &'static str) {
        let shown = ["locks.internal", "other.internal"]
            .into_iter()
            .find(|name| !self.take("old", name).err.contains("it is for"))
            .unwrap();
        let allowed = ["old", "new"].into_iter().find(|it| self.take(it, shown).code() == Some(0));
        (allowed.unwrap_or("none"), shown)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.server.home.path("log")).unwrap()
    }

    /// Waits until this is in the log, which another thread writes.
    fn is_told(&self, what: &str) {
        eventually(what, || self.log().contains(what).then_some(()));
    }

    /// Whether lines at `debug` are in the log.
    fn is_at_debug(&self) -> bool {
        let before = self.log().len();
        self.take("old", "x");
        // What is told whatever the filter is told behind all that was before it.
        self.server.process.signal(Signal::USR1);
        eventually("its state is told", || {
            let text = self.log();
            let (before, _) = text[before..].split_once("INFO  counters ")?;
            Some(before.contains("DEBUG"))
        })
    }
}

/// An access file by which a client's certificate may have this lock.
fn allowing(lock: &str) -> String {
    format!(
        "[[principal]]\nname = \"ann\"\ncertificates = [\"dns:client.internal\"]\n\
        may = [ {{ do = [\"lock\"], names = [\"{lock}\"] }} ]\n"
    )
}

fn settings(directory: &Path, cert: &str, access: &str, log: &str) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let (cert, key) = (at(&format!("{cert}.pem")), at(&format!("{cert}.key")));
    format!(
        "tls-cert = \"{cert}\"\ntls-key = \"{key}\"\ntls-client-ca = \"{}\"\n\
        access-file = \"{}\"\nlog = \"{log}\"\nephemeral = true\n",
        at("ca.pem"),
        at(access),
    )
}

#[test]
fn a_mistake_in_any_piece_leaves_every_piece_as_it_was_and_is_told_in_one_line() {
    let whole = Whole::start();
    assert_eq!(whole.holds(), ("old", "locks.internal"));
    // All of these change at once, and each time one of them is wrong.
    whole.write("new.toml", &allowing("new"));
    whole.write("wrong.toml", "[[principal]]\nname = \"ann\"\nmay = 7\n");
    whole.write("wrong.pem", "nonsense");
    whole.write("wrong.key", "nonsense");
    let mut lines = 0;
    for ((cert, access, log), piece, words) in [
        (("wrong", "new.toml", "debug"), "certificates", "wrong.pem has no certificate in PEM"),
        (("other", "wrong.toml", "debug"), "access file", "wrong.toml:3: "),
        (("other", "none.toml", "debug"), "access file", "cannot read the access file"),
        (("other", "new.toml", "loud"), "settings", "log is \"loud\""),
    ] {
        whole.configure(cert, access, log);
        lines += 1;
        let told = whole.reload(lines);
        let named = format!("nothing changed, for a mistake in the {piece}: ");
        assert!(told.contains(&named) && told.contains(words), "{told}");
        assert_eq!(whole.holds(), ("old", "locks.internal"), "{piece}");
        assert!(!whole.is_at_debug(), "{piece}");
    }
    // A contradiction is a mistake, too.
    let good = settings(&whole.server.home.path("."), "other", "new.toml", "debug");
    whole.write("c.toml", &format!("{good}allow-anyone = true\n"));
    let told = whole.reload(5);
    assert!(told.contains("--allow-anyone says nothing beside --access-file"), "{told}");
    assert_eq!(whole.holds(), ("old", "locks.internal"));

    whole.configure("other", "new.toml", "debug");
    let told = whole.reload(6);
    assert!(told.contains("reloaded: the log filter is \"debug\" now"), "{told}");
    assert!(told.contains("; certificates, for new connections; access file, open to 1"), "{told}");
    eventually("all of it holds", || {
        (whole.holds() == ("new", "other.internal") && whole.is_at_debug()).then_some(())
    });
}

#[test]
fn whether_there_is_tls_changes_by_a_restart_only_and_holds_nothing_else_up() {
    let whole = Whole::start();
    whole.write("new.toml", &allowing("new"));
    let access = whole.server.home.path("new.toml").display().to_string();
    whole.write(
        "c.toml",
        &format!("access-file = \"{access}\"\nlog = \"info\"\nephemeral = true\n"),
    );
    whole.reload(1);
    eventually("the rules hold", || (whole.holds().0 == "new").then_some(()));
    whole.is_told("effective only after a restart: tls-cert");
}

#[test]
fn a_certificate_that_expires_soon_or_has_expired_is_warned_of_at_start_and_reload() {
    let whole = Whole::start();
    let home = &whole.server.home;
    let log = || fs::read_to_string(home.path("log")).unwrap();
    assert!(!log().contains("expires in") && !log().contains(" expired "), "{}", log());
    let (cert, key) = (home.path("server.pem"), home.path("server.key"));
    whole.authority.issue_for_days(&["127.0.0.1"], &cert, &key, 9);
    whole.reload(1);
    whole.is_told("server.pem expires in 8d23h");
    whole.authority.issue_for_days(&["127.0.0.1"], &cert, &key, -3);
    // Rules can be changed whatever becomes of certificates.
    whole.reload(2);
    whole.is_told("server.pem expired 3d");
    let checked = run(home.coordinator(&[
        "config",
        "check",
        "--config",
        home.path("c.toml").to_str().unwrap(),
    ]));
    assert!(
        checked.err.contains("warning: the certificate in ") && checked.err.contains("expired 3d"),
        "{}",
        checked.err
    );
}

#[test]
fn that_clients_have_to_show_less_is_warned_of() {
    let whole = Whole::start();
    let path = whole.server.home.path("c.toml");
    let text = fs::read_to_string(&path).unwrap();
    whole.write("c.toml", &text.replace("tls-client-ca", "# tls-client-ca"));
    let told = whole.reload(1);
    assert!(told.contains("clients show nothing, before they must show a certificate"), "{told}");
    let log = fs::read_to_string(whole.server.home.path("log")).unwrap();
    let words = "SIGHUP: from now on, clients show nothing; before, they must show a certificate";
    assert!(log.lines().any(|it| it.contains("WARN") && it.contains(words)), "{log}");
}

#[test]
fn a_file_that_is_read_for_ever_is_told_of_and_what_comes_after_it_counts() {
    let whole = Whole::start();
    let home = &whole.server.home;
    let log = || fs::read_to_string(home.path("log")).unwrap();
    let (path, pipe) = (home.path("c.toml"), home.path("pipe"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = fs::read_to_string(&path).unwrap();
    fs::rename(&pipe, &path).unwrap();
    whole.server.process.signal(Signal::HUP);
    let told = "the files of the configuration have been read for over 10 s";
    eventually("the first is told", || log().contains(told).then_some(()));
    whole.server.process.signal(Signal::HUP);
    let told = "SIGHUP: nothing changed yet";
    eventually("the second is told", || log().contains(told).then_some(()));
    // A good file takes its place, and whoever was in the way ends.
    whole.write("new.toml", &allowing("new"));
    let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
    private(&home.path("c.next"), &text.replace("access.toml", "new.toml"));
    fs::rename(home.path("c.next"), &path).unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    drop(writer);
    eventually("the second counts", || (whole.holds().0 == "new").then_some(()));
    // A pipe in the place of rules is refused at once.
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::rename(&pipe, home.path("new.toml")).unwrap();
    whole.server.process.signal(Signal::HUP);
    eventually("it is refused", || log().contains("it is no regular file").then_some(()));
}
