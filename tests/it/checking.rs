//! `coordinator config check`: what a start would say, all of it, without starting.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::certificates::Authority;
use crate::support::{Done, Home, Server, run};

fn check(home: &Home, file: &str, more: &[&str]) -> Done {
    let path = home.path("c.toml");
    fs::write(&path, file).unwrap();
    let words = ["config", "check", "--config", path.to_str().unwrap()];
    run(home.coordinator(&[&words, more].concat()))
}

#[test]
fn every_mistake_is_told_at_once_with_its_place_and_what_to_do() {
    let home = Home::new();
    let at = |name: &str| home.path(name).display().to_string();
    fs::write(
        home.path("access.toml"),
        "[[principal]]\nname = \"ann\"\nmay = [ { do = [\"lok\"] } ]\n",
    )
    .unwrap();
    fs::write(home.path("data"), "").unwrap();
    fs::write(home.path("k.pem"), "nonsense").unwrap();
    let file = format!(
        "sesions-max = 5\nttl = \"5M\"\ntls-cert = \"{}\"\ntls-key = \"{}\"\naccess-file = \"{}\"\n\
        allow-anyone = true\ndata-dir = \"{}\"\naudit-log = \"{}\"\n",
        at("none.pem"),
        at("k.pem"),
        at("access.toml"),
        at("data"),
        at("access.toml"),
    );
    let done = check(&home, &file, &[]);
    assert_eq!(done.code(), Some(2), "{}", done.err);
    for words in [
        "c.toml:1: unknown setting \"sesions-max\"",
        "hint: did you mean \"sessions-max\"?",
        "c.toml:2: ttl is \"5M\": M means months",
        "none.pem: No such file",
        "access.toml:3: there is no \"lok\"",
        "--allow-anyone says nothing beside --access-file",
        "--audit-log and --access-file name the same file",
        "cannot use the data directory",
    ] {
        assert!(done.err.contains(words), "{words}: {}", done.err);
    }
    let verdict = done.out.lines().last().unwrap();
    assert!(verdict.ends_with(": 7 mistakes, 1 warning; serve would not start"), "{verdict}");
    assert!(done.out.lines().any(|line| line.starts_with("audit-log ")), "{}", done.out);
    // What is wrong contradicts nothing: `listen` may have been meant to be loopback.
    let done = check(&home, "listen = \"0.0.0.0\"\n", &[]);
    assert!(
        done.err.contains("listen is \"0.0.0.0\"") && !done.err.contains("can be reached"),
        "{}",
        done.err
    );
}

#[test]
fn a_configuration_without_mistakes_is_told_so_beside_the_coordinator_that_runs_by_it() {
    let server = Server::start_durable();
    let home = &server.home;
    let authority = Authority::new(&home.path("ca.pem"));
    authority.issue(&["127.0.0.1"], &home.path("s.pem"), &home.path("s.key"));
    fs::set_permissions(home.path("s.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    // Neither its port nor its data directory is touched.
    let file = format!(
        "listen = \"{}\"\ntls-cert = \"{}\"\ntls-key = \"{}\"\n",
        taken.local_addr().unwrap(),
        home.path("s.pem").display(),
        home.path("s.key").display(),
    );
    let done = check(home, &file, &[]);
    assert_eq!((done.code(), done.err.as_str()), (Some(0), ""), "{}", done.out);
    assert!(done.out.ends_with("c.toml: no mistakes, 0 warnings\n"), "{}", done.out);
    let line = done.out.lines().find(|line| line.starts_with("tls-cert ")).unwrap();
    assert!(line.ends_with("c.toml:2  yes"), "{line}");
    let missing =
        check(home, &format!("data-dir = \"{}\"\n", home.path("new/data").display()), &[]);
    assert_eq!(missing.code(), Some(0), "{}", missing.err);
    assert!(!home.path("new").exists(), "nothing is made");
}

#[test]
fn what_is_doubtful_is_warned_of_and_programs_get_the_same() {
    let home = Home::new();
    let authority = Authority::new(&home.path("ca.pem"));
    authority.issue_for_days(&["127.0.0.1"], &home.path("s.pem"), &home.path("s.key"), 9);
    let file = format!(
        "tls-cert = \"{}\"\ntls-key = \"{}\"\nconnections-per-address-max = 20000\n",
        home.path("s.pem").display(),
        home.path("s.key").display(),
    );
    let done = check(&home, &file, &[]);
    assert_eq!(done.code(), Some(0), "{}", done.err);
    for words in [
        "connections-per-address-max limits nothing",
        "s.pem expires in",
        "others can read the key",
    ] {
        assert!(done.err.contains(words), "{words}: {}", done.err);
    }
    let json = check(&home, &file, &["--json", "--max", "x"]);
    assert_eq!(json.code(), Some(2), "an unknown flag");
    let json = check(&home, &file, &["--json", "--ephemeral", "--journal", "machine"]);
    assert_eq!(json.code(), Some(2), "{}", json.err);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["warnings"].as_array().unwrap().len(), 3);
    let mistake = &json["mistakes"][0];
    assert_eq!(mistake["what"], "--ephemeral keeps no state on disk, so --journal writes nothing");
    assert_eq!(mistake["hint"], "remove one of the two");
    assert_eq!(json["settings"][0]["reload"], "restart");
    assert!(json["file"].as_str().unwrap().ends_with("c.toml"));
}

#[test]
fn credentials_that_would_be_readable_on_the_wire_are_refused_unless_that_is_meant() {
    let home = Home::new();
    let access = home.path("access.toml");
    let digest = "0".repeat(64);
    let text = format!(
        "[[principal]]\nname = \"ann\"\ncredentials = [\"sha256:{digest}\"]\n\
        may = [ {{ do = [\"lock\"], names = [\"*\"] }} ]\n"
    );
    fs::write(&access, text).unwrap();
    fs::set_permissions(&access, fs::Permissions::from_mode(0o600)).unwrap();
    let file = format!("listen = \"0.0.0.0:0\"\naccess-file = \"{}\"\n", access.display());
    let done = check(&home, &file, &[]);
    assert_eq!(done.code(), Some(2));
    assert!(done.err.contains("would be readable on the wire"), "{}", done.err);
    assert!(done.err.contains("--credential-in-clear"), "{}", done.err);
    let meant = check(&home, &format!("{file}credential-in-clear = true\n"), &[]);
    assert_eq!(meant.code(), Some(0), "{}", meant.err);
    let path = home.path("c.toml");
    for other in ["http-listen", "redis-listen"] {
        let file = format!(
            "listen = \"127.0.0.1:0\"\n{other} = \"0.0.0.0:0\"\naccess-file = \"{}\"\n",
            access.display()
        );
        let done = check(&home, &file, &[]);
        let words = format!("without TLS on --{other} 0.0.0.0:0 they would be readable");
        assert!(done.err.contains(&words), "{}", done.err);
    }
    fs::write(home.path("c.toml"), file).unwrap();
    let served =
        run(home.coordinator(&["serve", "--config", path.to_str().unwrap(), "--ephemeral"]));
    assert_eq!(served.code(), Some(2), "{}", served.err);
}

#[test]
fn what_a_start_could_not_write_or_read_for_others_is_a_mistake() {
    let home = Home::new();
    fs::create_dir(home.path("d")).unwrap();
    fs::write(home.path("ca.pem"), "nonsense").unwrap();
    let at = |name: &str| home.path(name).display().to_string();
    let authority = Authority::new(&home.path("good.pem"));
    authority.issue(&["127.0.0.1"], &home.path("s.pem"), &home.path("s.key"));
    let clustered = format!(
        "cluster = \"test\"\netcd = \"http://127.0.0.1:1\"\ntls-cert = \"{}\"\ntls-key = \"{}\"\n",
        at("s.pem"),
        at("s.key")
    );
    for (file, words) in [
        (format!("audit-log = \"{}\"\n", at("none/a.log")), "cannot write the audit log"),
        (format!("audit-log = \"{}\"\n", at("d")), "cannot write the audit log"),
        (format!("port-file = \"{}\"\n", at("none/port")), "cannot write the port file"),
        (format!("{clustered}peer-ca = \"{}\"\n", at("ca.pem")), "cannot trust the other members"),
        (format!("{clustered}etcd-ca = \"{}\"\n", at("none.pem")), "cannot read --etcd-ca"),
    ] {
        let done = check(&home, &file, &[]);
        assert_eq!(done.code(), Some(2), "{file}: {}", done.err);
        assert!(done.err.contains(words), "{words}: {}", done.err);
        let path = home.path("c.toml");
        let serve = ["serve", "--config", path.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let served = run(home.coordinator(&serve));
        assert!(served.err.contains(words), "a start says the same: {}", served.err);
    }
    let good = format!("audit-log = \"{}\"\nport-file = \"{}\"\n", at("d/a"), at("d/p"));
    assert_eq!(check(&home, &good, &[]).code(), Some(0));
    assert_eq!(fs::read_dir(home.path("d")).unwrap().count(), 0, "nothing is made");
}
