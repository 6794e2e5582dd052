//! Who may do what, with the real program: credentials, certificates, rules that change, and what users read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use coordinator::access::Digest;
use coordinator::types::Credential;
use rustix::process::Signal;

use crate::certificates::Authority;
use crate::support::{Done, Home, Server, eventually, run, start};
use crate::watchdog::watchdog_on_duty;

/// The credential of somebody: their name, over and over.
pub(crate) fn credential(name: &str) -> Credential {
    let mut bits = [0; 32];
    bits.iter_mut().zip(name.bytes().cycle()).for_each(|(bit, byte)| *bit = byte);
    Credential::from_random(bits)
}

/// The lines of a principal in an access file.
pub(crate) fn principal(name: &str, rest: &str) -> String {
    let digest = Digest::of(credential(name).reveal());
    format!("[[principal]]\nname = {name:?}\ncredentials = [\"{digest}\"]\n{rest}\n")
}

/// A file that nobody else may read.
fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

const ANN: &str = "may = [ { do = [\"lock\", \"see\"], names = [\"a\", \"a/*\"] } ]";
const OPS: &str = "may = [ { do = [\"see\", \"break\"], names = [\"*\"] }, { do = [\"admin\"] } ]";

fn usual() -> String {
    principal("ann", ANN) + &principal("ops", OPS)
}

/// A coordinator with an access file, and its log in a file.
struct Guarded {
    server: Server,
}

impl Guarded {
    fn start(text: &str, flags: &[&str]) -> Self {
        let home = Home::new();
        private(&home.path("access.toml"), text);
        for name in ["ann", "ops", "mallory"] {
            private(&home.path(name), credential(name).reveal());
        }
        Self::start_in(home, flags)
    }

    fn start_in(home: Home, flags: &[&str]) -> Self {
        let line = "exec \"$0\" serve --listen 127.0.0.1:0 --port-file port --access-file access.toml \"$@\" 2>log";
        let mut command = home.command("sh");
        command.current_dir(home.path(".")).args(["-c", line, env!("CARGO_BIN_EXE_coordinator")]);
        command.args(flags);
        Self { server: Server::start_by_command(home, command) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.home.path(name)
    }

    fn command(&self, who: Option<&str>, words: &[&str]) -> Command {
        let mut command = self.server.client(words);
        if let Some(who) = who {
            command.env("COORDINATOR_CREDENTIAL_FILE", self.path(who));
        }
        command
    }

    fn run(&self, who: Option<&str>, words: &[&str]) -> Done {
        run(self.command(who, words))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    fn reload(&self, text: &str) {
        private(&self.path("access.toml"), text);
        self.server.process.signal(Signal::HUP);
    }

    /// Waits for a line of the log.
    fn told(&self, what: &str) -> String {
        eventually(what, || self.log().lines().find(|line| line.contains(what)).map(str::to_owned))
    }
}

#[test]
fn a_credential_is_shown_from_its_file_or_its_variable_and_never_printed() {
    let guarded = Guarded::start(&usual(), &["--log", "trace"]);
    let done = guarded.run(Some("ann"), &["lock", "a", "--", "true"]);
    assert_eq!(done.code(), Some(0), "{}", done.err);
    let mut command = guarded.command(None, &["lock", "a/b", "--", "sh", "-c", "env"]);
    command.env("COORDINATOR_CREDENTIAL", credential("ann").reveal());
    let done = run(command);
    assert_eq!(done.code(), Some(0), "{}", done.err);
    assert!(!done.out.contains("COORDINATOR_CREDENTIAL="), "its command has the secret");
    // The user's own, where it is looked for.
    let own = guarded.path(".config/coordinator");
    fs::create_dir_all(&own).unwrap();
    private(&own.join("credential"), credential("ops").reveal());
    assert_eq!(guarded.run(None, &["status", "--sessions"]).code(), Some(0));
    let wrong = guarded.run(Some("mallory"), &["ping"]);
    assert_eq!(wrong.code(), Some(77), "{}", wrong.err);
    for name in ["ann", "ops", "mallory"] {
        let credential = credential(name);
        let secret = &credential.reveal()[6..20];
        assert!(!guarded.log().contains(secret), "the log has the credential of {name}");
    }
}

#[test]
fn who_may_not_reads_why_and_what_to_do() {
    let guarded = Guarded::start(&usual(), &[]);
    for (who, words, told) in [
        (None, &["ping"][..], "wants to know who you are"),
        (Some("mallory"), &["ping"], "proves nobody here"),
        (Some("ann"), &["lock", "b", "--", "true"], "ann may not lock \"b\""),
        (Some("ann"), &["lock", "a", "--and", "b", "--", "true"], "ann may not lock \"b\""),
        (Some("ann"), &["status", "b"], "ann may not see \"b\""),
        (Some("ann"), &["events", "b"], "ann may not see \"b\""),
        (Some("ann"), &["release", "a", "--force", "--token", "7"], "ann may not break \"a\""),
        (Some("ops"), &["try", "a", "--", "true"], "ops may not lock anything"),
        (Some("ops"), &["hold", "a", "--max", "1"], "ops may not lock anything"),
        (Some("ops"), &["acquire", "a"], "ops may not lock anything"),
    ] {
        let done = guarded.run(who, words);
        assert_eq!(done.code(), Some(77), "{words:?}: {}", done.err);
        assert!(done.err.contains(told) && done.err.contains("hint: "), "{}", done.err);
    }
    let nobody = guarded.run(Some("ops"), &["release", "a", "--force", "--token", "7"]);
    assert_eq!(nobody.code(), Some(1), "{}", nobody.err);
    guarded.told("denied connection=");
    guarded.told("what was shown is in no line of the access file");
}

#[test]
fn a_command_under_a_lock_shows_the_file_that_was_named_too() {
    let guarded = Guarded::start(&usual(), &[]);
    let program = env!("CARGO_BIN_EXE_coordinator");
    let inner = guarded
        .server
        .home
        .script("inner", &format!("#!/bin/sh\nexec {program} status --json a\n"));
    let file = guarded.path("ann");
    let words = ["lock", "--credential-file", file.to_str().unwrap(), "a", "--", &inner];
    let done = guarded.run(None, &words);
    assert_eq!(done.code(), Some(0), "{}", done.err);
    assert!(done.out.contains("ann "), "the principal is shown: {}", done.out);
}

#[test]
fn a_lock_of_a_killed_client_is_released_by_its_watchdog_which_shows_the_same() {
    // The variable, or the user's own file where it is looked for.
    for is_variable in [true, false] {
        let guarded = Guarded::start(&usual(), &[]);
        let words = ["lock", "--ttl", "60s", "a", "--", "sleep", "60"];
        let mut command = guarded.command(None, &words);
        if is_variable {
            command.env("COORDINATOR_CREDENTIAL", credential("ann").reveal());
        } else {
            let own = guarded.path(".config/coordinator");
            fs::create_dir_all(&own).unwrap();
            private(&own.join("credential"), credential("ann").reveal());
        }
        command.current_dir(guarded.path("."));
        let holder = start(command);
        watchdog_on_duty(&holder);
        holder.signal(Signal::KILL);
        let next = guarded.run(Some("ann"), &["lock", "-w", "20", "a", "--", "true"]);
        assert_eq!(next.code(), Some(0), "{}", next.err);
    }
}

#[test]
fn a_credential_that_others_can_read_or_that_is_none_is_refused() {
    let guarded = Guarded::start(&usual(), &[]);
    let file = guarded.path("ann");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = guarded.run(Some("ann"), &["ping"]);
    assert_eq!(exposed.code(), Some(2));
    assert!(exposed.err.contains("chmod 600"), "{}", exposed.err);
    let secret = credential("ann").reveal().to_owned();
    for (text, told) in [
        ("", "a credential is coord_"),
        (&secret[..70], "a credential is coord_"),
        (&format!("{}0", &secret[..77]), "mistyped"),
    ] {
        private(&file, text);
        let wrong = guarded.run(Some("ann"), &["ping"]);
        assert_eq!(wrong.code(), Some(2), "{}", wrong.err);
        assert!(wrong.err.contains(told), "{}", wrong.err);
        assert!(text.is_empty() || !wrong.err.contains(&text[6..]), "{}", wrong.err);
    }
    let missing = guarded.run(Some("nothing"), &["ping"]);
    assert!(missing.err.contains("cannot read the credential"), "{}", missing.err);
}

#[test]
fn other_rules_are_taken_over_whole_or_not_at_all() {
    let guarded = Guarded::start(&usual(), &[]);
    let may = |who: &str, lock: &str| guarded.run(Some(who), &["try", lock, "--", "true"]).code();
    assert_eq!((may("ann", "a"), may("ann", "c")), (Some(0), Some(77)));
    // A good principal, and a mistake behind it: nothing of that holds.
    let half = principal("ann", "may = [ { do = [\"lock\"], names = [\"c\"] } ]")
        + "[[principal]]\nname = \"late\"\nmay = [ { do = [\"lok\"], names = [\"c*\"] } ]\n";
    guarded.reload(&half);
    let told = guarded.told("nothing changed, for a mistake in the access file");
    assert!(told.contains("access.toml:7: there is no \"lok\""), "{told}");
    assert!(told.contains("a star may only stand alone"), "{told}");
    assert_eq!((may("ann", "a"), may("ann", "c")), (Some(0), Some(77)));
    fs::remove_file(guarded.path("access.toml")).unwrap();
    guarded.server.process.signal(Signal::HUP);
    guarded.told("cannot read the access file");
    assert_eq!(may("ann", "a"), Some(0));
    let whole = principal("ann", "may = [ { do = [\"lock\"], names = [\"c\"] } ]");
    guarded.reload(&whole);
    guarded.told("reloaded: the log filter is still \"info\"; access file, open to");
    eventually("they hold", || (may("ann", "c") == Some(0)).then_some(()));
    assert_eq!((may("ann", "a"), may("ops", "a")), (Some(77), Some(77)));
}

#[test]
fn a_waiter_that_is_not_allowed_any_more_ends_with_77_and_a_holder_goes_on() {
    let both = principal("ann", ANN)
        + &principal("ops", "may = [ { do = [\"lock\", \"see\"], names = [\"*\"] } ]");
    let guarded = Guarded::start(&both, &[]);
    let go = guarded.path("go");
    let line = format!("echo > begun; while [ ! -e {} ]; do sleep 0.05; done", go.display());
    let mut command = guarded.command(Some("ann"), &["lock", "a", "--", "sh", "-c", &line]);
    command.current_dir(guarded.path("."));
    let holder = start(command);
    eventually("it holds", || guarded.path("begun").exists().then_some(()));
    let waiter = start(guarded.command(Some("ops"), &["lock", "a", "--", "true"]));
    eventually("it waits", || {
        let status = guarded.run(Some("ann"), &["status", "--json", "a"]);
        status.out.contains("\"waiter_count\": 1").then_some(())
    });
    let fewer = principal("ann", "may = [ { do = [\"see\"], names = [\"*\"] } ]")
        + &principal("ops", "may = [ { do = [\"see\"], names = [\"*\"] } ]");
    guarded.reload(&fewer);
    let waiter = waiter.end();
    assert_eq!(waiter.code(), Some(77), "{}", waiter.err);
    assert!(waiter.err.contains("ops may not lock \"a\""), "{}", waiter.err);
    assert!(guarded.run(Some("ops"), &["status", "a"]).out.contains("ann "));
    fs::write(go, "").unwrap();
    let holder = holder.end();
    assert_eq!(holder.code(), Some(0), "{}", holder.err);
}

#[test]
fn who_is_taken_out_of_the_file_is_told_goodbye() {
    let guarded = Guarded::start(&usual(), &[]);
    let mut command =
        guarded.command(Some("ann"), &["lock", "a", "--", "sh", "-c", "echo > begun; sleep 60"]);
    command.current_dir(guarded.path("."));
    let holder = start(command);
    eventually("it holds", || guarded.path("begun").exists().then_some(()));
    guarded.reload(&principal("ops", OPS));
    // Its lock lasts as long as its lease, and it cannot prove any more that it has it.
    let holder = holder.end();
    assert_eq!(holder.code(), Some(70), "{}", holder.err);
    assert!(holder.err.contains("refuses this client now"), "{}", holder.err);
    assert_eq!(guarded.run(Some("ann"), &["ping"]).code(), Some(77));
}

#[test]
fn a_certificate_proves_a_principal_by_its_uri_or_its_host() {
    let home = Home::new();
    let authority = Authority::new(&home.path("ca.pem"));
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    for (name, names) in [
        ("server", &["127.0.0.1"][..]),
        ("uri", &["spiffe://prod/billing", "x.internal"]),
        ("dns", &["Billing.internal"]),
        ("nobody", &["other.internal"]),
        ("two", &["billing.internal", "cron.internal"]),
    ] {
        authority.issue(
            names,
            &home.path(&format!("{name}.pem")),
            &home.path(&format!("{name}.key")),
        );
    }
    let text = "[[principal]]\nname = \"billing\"\n\
        certificates = [\"uri:spiffe://prod/billing\", \"dns:billing.internal\"]\n\
        may = [ { do = [\"lock\"], names = [\"b\"] } ]\n\
        [[principal]]\nname = \"cron\"\ncertificates = [\"dns:cron.internal\"]\n";
    private(&home.path("access.toml"), &(principal("ann", ANN) + text));
    private(&home.path("ann"), credential("ann").reveal());
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let mut flags = vec!["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
    flags.extend(["--tls-client-auth", "optional"]);
    let guarded = Guarded::start_in(home, &flags);
    let home = &guarded.server.home;
    let run_as = |cert: Option<&str>, credential: Option<&str>, lock: &str| {
        let mut command = guarded.command(credential, &["try", lock, "--", "true"]);
        command.env("COORDINATOR_SERVER", format!("tls://{}", guarded.server.address));
        command.env("COORDINATOR_SERVER_CA", home.path("ca.pem"));
        if let Some(cert) = cert {
            command.env("COORDINATOR_CLIENT_CERT", home.path(&format!("{cert}.pem")));
            command.env("COORDINATOR_CLIENT_KEY", home.path(&format!("{cert}.key")));
        }
        let done = run(command);
        (done.code().unwrap(), done.err)
    };
    for (cert, credential, lock, code) in [
        (Some("uri"), None, "b", 0),
        (Some("dns"), None, "b", 0),
        (Some("uri"), None, "a", 77),
        (None, Some("ann"), "a", 0),
        (None, Some("ann"), "b", 77),
        // Nobody, two, or another than the credential says.
        (None, None, "b", 77),
        (Some("nobody"), None, "b", 77),
        (Some("two"), None, "b", 77),
        (Some("uri"), Some("ann"), "b", 77),
        (Some("nobody"), Some("ann"), "a", 0),
    ] {
        let done = run_as(cert, credential, lock);
        assert_eq!(done.0, code, "{cert:?} {credential:?} {lock}: {}", done.1);
    }
}

#[test]
fn an_access_file_that_others_can_write_or_that_is_wrong_is_refused_at_the_start() {
    let home = Home::new();
    let file = home.path("access.toml");
    let serve = |home: &Home| {
        let file = file.to_str().unwrap();
        run(home.coordinator(&[
            "serve",
            "--ephemeral",
            "--listen",
            "127.0.0.1:0",
            "--access-file",
            file,
        ]))
    };
    private(
        &file,
        "[[principal]]\nname = \"Ann\"\nmay = [ { do = [\"lock\"], names = [\"a*\"] } ]\n",
    );
    let wrong = serve(&home);
    assert_eq!(wrong.code(), Some(2));
    assert!(wrong.err.contains("2 mistakes in the access file"), "{}", wrong.err);
    assert!(wrong.err.contains("access.toml:3: \"a*\""), "{}", wrong.err);
    private(&file, &usual());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let exposed = serve(&home);
    assert_eq!(exposed.code(), Some(2));
    assert!(exposed.err.contains("chmod go-w"), "{}", exposed.err);
    let both = run(home.coordinator(&[
        "serve",
        "--ephemeral",
        "--listen",
        "127.0.0.1:0",
        "--allow-anyone",
        "--access-file",
        "x",
    ]));
    assert!(both.err.contains("--allow-anyone says nothing beside --access-file"), "{}", both.err);
}

#[test]
fn an_access_file_is_checked_and_asked_without_a_coordinator() {
    let home = Home::new();
    let made = run(home.coordinator(&["access", "new-credential", "ann"]));
    assert_eq!(made.code(), Some(0), "{}", made.err);
    let made_credential: Credential = made.out.trim().parse().unwrap();
    let digest = Digest::of(made_credential.reveal()).to_string();
    assert!(made.err.contains(&digest), "{}", made.err);
    let other = run(home.coordinator(&["access", "new-credential", "ann"]));
    assert_ne!(made.out, other.out);

    let file = home.path("access.toml");
    private(&file, &usual());
    let ask = |words: &[&str]| {
        let mut command = home.coordinator(&["access"]);
        command.args(words).env("COORDINATOR_ACCESS_FILE", &file);
        run(command)
    };
    assert_eq!(ask(&["check"]).code(), Some(0));
    for (words, code, told) in [
        (&["may", "ann", "lock", "a/b"][..], 0, "yes, by line 4"),
        (&["may", "ann", "share", "a"], 0, "yes, by line 4"),
        (&["may", "ops", "admin"], 0, "yes, by line 8"),
        (&["may", "ann", "lock", "b"], 77, "no; ann may lock, see a; lock, see a/*"),
        (&["may", "ann", "admin"], 77, "no; ann may"),
        (&["may", "eve", "lock", "b"], 2, "it has ann, ops"),
        (&["may", "ann", "lok", "b"], 2, "there is lock, share, see, break, admin"),
        (&["may", "ann", "lock"], 2, "which lock may ann lock?"),
        (&["may", "ann"], 2, "may takes a principal, a verb and the name of a lock"),
        (&["new-credential", "Ann"], 2, "a principal has a name"),
    ] {
        let done = ask(words);
        let text = format!("{}{}", done.out, done.err);
        assert_eq!(done.code(), Some(code), "{words:?}: {text}");
        assert!(text.contains(told), "{words:?}: {text}");
    }
    private(&file, "[[principal]]\nname = \"a\"\nmay = 3\ncolour = 1\n");
    let mistaken = ask(&["check"]);
    assert_eq!(mistaken.code(), Some(2));
    assert!(mistaken.err.contains("access.toml:3: may is a list"), "{}", mistaken.err);
    assert!(
        mistaken.err.contains("access.toml:4: a principal has no \"colour\""),
        "{}",
        mistaken.err
    );
}

#[test]
fn the_audit_log_tells_who_took_which_lock_from_whom_and_why() {
    let guarded = Guarded::start(&usual(), &["--audit-log", "audit"]);
    let mut command =
        guarded.command(Some("ann"), &["lock", "a", "--", "sh", "-c", "echo > begun; sleep 60"]);
    command.current_dir(guarded.path("."));
    let holder = start(command);
    eventually("it holds", || guarded.path("begun").exists().then_some(()));
    guarded.run(Some("mallory"), &["ping"]);
    guarded.run(Some("ann"), &["try", "b", "--", "true"]);
    let token = eventually("the token is seen", || {
        let status = guarded.run(Some("ops"), &["status", "--json", "a"]);
        let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
        status["locks"][0]["holders"][0]["token"].as_u64()
    });
    let broken = guarded.run(
        Some("ops"),
        &["release", "a", "--force", "--token", &token.to_string(), "--reason", "it hangs"],
    );
    assert_eq!(broken.code(), Some(0), "{}", broken.err);
    assert_eq!(holder.end().code(), Some(70));
    guarded.reload("nonsense");
    guarded.told("nothing changed, for a mistake in the access file");
    let Guarded { server } = guarded;
    let home = server.end_by(Signal::TERM).home;
    let text = fs::read_to_string(home.path("audit")).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |event: &str, result: &str| {
        let found = lines.iter().find(|it| it["event"] == event && it["result"] == result);
        found.unwrap_or_else(|| panic!("no {event} {result} in {text}"))
    };
    let revoked = find("revoke", "ok");
    assert_eq!((&revoked["principal"], &revoked["lock"]), (&"ops".into(), &"a".into()));
    assert_eq!((&revoked["reason"], &revoked["token"]), (&"it hangs".into(), &token.into()));
    assert!(revoked["victim"].as_str().unwrap().starts_with("ann "), "{revoked}");
    let denied = find("request", "denied");
    assert_eq!((&denied["principal"], &denied["verb"]), (&"ann".into(), &"lock".into()));
    assert_eq!((&denied["lock"], &denied["method"]), (&"b".into(), &"credential".into()));
    assert!(find("sign_in", "refused")["reason"].as_str().unwrap().contains("nobody"));
    assert_eq!(find("session", "opened")["principal"], "ann");
    find("session", "ended");
    assert!(find("reload", "refused")["reason"].as_str().unwrap().contains("access.toml:1"));
    find("start", "ok");
    find("stop", "ok");
    for name in ["ann", "ops", "mallory"] {
        assert!(!text.contains(&credential(name).reveal()[6..20]), "{text}");
    }
}

#[test]
fn a_probe_hears_that_the_coordinator_is_alive_without_a_credential() {
    let guarded = Guarded::start(&usual(), &[]);
    let ping = |words: &[&str]| run(guarded.server.client(words));
    let refused = ping(&["ping"]);
    assert_eq!(refused.code(), Some(77), "{refused:?}");
    let alive = ping(&["ping", "--alive"]);
    assert_eq!(alive.code(), Some(0), "{alive:?}");
    assert!(alive.out.ends_with(" is alive\n"), "{alive:?}");
    let nobody = ping(&["ping", "--alive", "--server", "127.0.0.1:1"]);
    assert_eq!(nobody.code(), Some(69), "{nobody:?}");
}
