//! Pairs of settings that are refused, and those that are not.

use std::collections::BTreeMap;

use super::*;
use crate::cli::settings::sources::Sources;

/// Settings by flags and a file; what is not valid in itself panics.
fn settings(flags: &[(&'static str, &str)], file: &str) -> Settings {
    let flags: BTreeMap<_, _> = flags.iter().map(|(key, text)| (*key, (*text).into())).collect();
    let sources = Sources::new(flags, [("HOME".to_owned(), "/home/ann".to_owned())]).unwrap();
    let sources = sources.with_file("c.toml".into(), file).unwrap();
    let (settings, mistakes) = Settings::gather(&sources);
    assert!(mistakes.is_empty(), "{mistakes:?}");
    settings.unwrap()
}

fn told(flags: &[(&'static str, &str)], file: &str) -> Vec<String> {
    let settings = settings(flags, file);
    let all = of_every_command(&settings).into_iter().chain(of_a_server(&settings));
    all.map(|it| it.failure.in_one_line()).collect()
}

#[test]
fn each_pair_that_contradicts_itself_is_refused_by_its_names_with_what_to_do() {
    for (file, words) in [
        ("tls-cert = \"c\"", ["tls-cert says nothing without tls-key", "set --tls-key"]),
        ("tls-key = \"k\"", ["tls-key says nothing without tls-cert", "set --tls-cert"]),
        ("tls-client-ca = \"a\"", ["tls-client-ca says nothing without tls-cert", "--tls-cert"]),
        ("tls-crl = \"l\"", ["tls-crl says nothing without tls-client-ca", "--tls-client-ca"]),
        (
            "tls-client-auth = \"optional\"",
            ["tls-client-auth says nothing without", "--tls-client-ca"],
        ),
        ("client-cert = \"c\"", ["client-cert says nothing without client-key", "--client-key"]),
        ("client-key = \"k\"", ["client-key says nothing without client-cert", "--client-cert"]),
        ("audit-log = \"\"", ["audit-log is empty", "name a file"]),
        (
            "allow-anyone = true\naccess-file = \"a\"",
            ["--allow-anyone says nothing beside", "remove one"],
        ),
        ("listen = \"0.0.0.0:1\"", ["--listen 0.0.0.0:1 can be reached", "access-file = \"FILE\""]),
        (
            "http-listen = \"[::]:1\"",
            ["--http-listen [::]:1 can be reached", "allow-anyone = true"],
        ),
        ("ephemeral = true\ndata-dir = \"/x\"", ["so --data-dir has no effect", "remove one"]),
        ("ephemeral = true\njournal = \"machine\"", ["so --journal writes nothing", "remove one"]),
        ("ephemeral = true\naccept-lost-state = true", ["so --accept-lost-state", "remove one"]),
        ("ephemeral = true\naccept-stale-state = true", ["so --accept-stale-state", "remove one"]),
        (
            "listen = \"127.0.0.1:9\"\nhttp-listen = \"127.0.0.1:9\"",
            ["the same port", "of their own"],
        ),
        (
            "cluster = \"a\"\netcd = \"http://a:1\"\nlisten = \"127.0.0.1:9\"\npeer-listen = \"127.0.0.1:9\"",
            [
                "--listen 127.0.0.1:9 and --peer-listen 127.0.0.1:9 are the same port",
                "of their own",
            ],
        ),
        (
            "cluster = \"a\"\netcd = \"http://a:1\"\nhttp-listen = \"127.0.0.1:9\"\npeer-listen = \"127.0.0.1:9\"",
            ["--http-listen 127.0.0.1:9 and --peer-listen", "of their own"],
        ),
        (
            "cluster = \"a\"\netcd = \"http://a:1\"\njournal = \"off\"\npeer-listen = \"127.0.0.1:9\"",
            ["with --journal off there is none", "leave out --journal off"],
        ),
        (
            "cluster = \"a\"\netcd = \"http://a:1\"\nephemeral = true\npeer-listen = \"127.0.0.1:9\"",
            ["with --ephemeral there is none", "leave out --ephemeral"],
        ),
        (
            "audit-log = \"/x\"\naccess-file = \"/x\"",
            ["--audit-log and --access-file name the same", "another"],
        ),
        ("port-file = \"/x\"\naudit-log = \"/x\"", ["name the same file", "another"]),
    ] {
        let told = told(&[], file);
        assert!(!told.is_empty(), "{file}");
        assert!(words.iter().all(|word| told[0].contains(word)), "{file}: {told:?}");
    }
}

#[test]
fn what_makes_an_open_address_safe_is_said_as_the_address_was() {
    let by_flag = told(&[("listen", "0.0.0.0:1")], "");
    assert!(by_flag[0].contains("; if anyone is meant, say --allow-anyone"), "{by_flag:?}");
    let variables = [("HOME", "/home/ann"), ("COORDINATOR_LISTEN", "0.0.0.0:1")];
    let variables = variables.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let sources = Sources::new(BTreeMap::new(), variables).unwrap();
    let settings = Settings::resolve(&sources).unwrap();
    let in_a_container = of_a_server(&settings)[0].failure.in_one_line();
    for words in ["COORDINATOR_ACCESS_FILE=FILE says who", "say COORDINATOR_ALLOW_ANYONE=true"] {
        assert!(in_a_container.contains(words), "{in_a_container}");
    }
}

#[test]
fn what_goes_together_is_not_refused() {
    for file in [
        "",
        "tls-cert = \"c\"\ntls-key = \"c\"\ntls-client-ca = \"a\"\ntls-client-auth = \"optional\"",
        "listen = \"0.0.0.0:1\"\naccess-file = \"a\"",
        "listen = \"0.0.0.0:1\"\nallow-anyone = true",
        "ephemeral = true\njournal = \"off\"\naccept-lost-state = false",
        "listen = \"127.0.0.1:0\"\nhttp-listen = \"127.0.0.1:0\"",
        "listen = \"127.0.0.1:9\"\nhttp-listen = \"127.0.0.2:9\"",
        // Of clients on this machine, that connect elsewhere by flags.
        "server-ca = \"ca\"",
    ] {
        assert_eq!(told(&[], file), [""; 0], "{file}");
    }
}

#[test]
fn a_flag_may_void_what_a_file_says_and_not_what_another_flag_says() {
    let file = "data-dir = \"/srv\"\njournal = \"machine\"\n";
    assert_eq!(told(&[("ephemeral", "true")], file), [""; 0]);
    let both = told(&[("ephemeral", "true"), ("data-dir", "/x")], "");
    assert!(both[0].contains("--data-dir has no effect"), "{both:?}");
    let flag = told(&[("data-dir", "/x")], "ephemeral = true");
    assert!(flag[0].contains("--data-dir has no effect"), "{flag:?}");
}

#[test]
fn a_flag_for_tls_is_refused_where_the_server_is_reached_without() {
    let plain = told(&[("server-ca", "ca"), ("server", "a:1")], "");
    assert_eq!(
        plain,
        ["--server-ca says nothing without TLS (--server tls://a:1 connects by TLS)"]
    );
    assert_eq!(told(&[("server-ca", "ca"), ("server", "tls://a:1")], ""), [""; 0]);
}

#[test]
fn what_limits_nothing_or_opens_more_than_it_seems_is_doubted() {
    for (file, words) in [
        (
            "connections-max = 5\nconnections-per-address-max = 6",
            "connections-per-address-max limits nothing",
        ),
        (
            "sessions-max = 5\nsessions-per-address-max = 6",
            "sessions-per-address-max limits nothing",
        ),
        ("http-listen = \"\"\nhttp-host = \"a\"", "http-host says nothing"),
        (
            "tls-cert = \"c\"\ntls-key = \"k\"\ntls-client-ca = \"a\"\ntls-client-auth = \"optional\"",
            "may do everything",
        ),
        ("ttl = \"20m\"", "ttl-max"),
    ] {
        let doubts = doubts(&settings(&[], file));
        assert!(doubts.len() == 1 && doubts[0].contains(words), "{file}: {doubts:?}");
    }
    assert_eq!(doubts(&settings(&[], "sessions-max = 5\nsessions-per-address-max = 5")), [""; 0]);
}

#[test]
fn a_file_that_would_be_written_over_is_found_however_it_is_spelled() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let (rules, config) = (at("rules"), at("c.toml"));
    std::fs::write(&rules, "").unwrap();
    std::fs::write(&config, "").unwrap();
    std::fs::create_dir(at("d")).unwrap();
    std::fs::hard_link(&rules, at("hard")).unwrap();
    std::os::unix::fs::symlink(&rules, at("soft")).unwrap();
    std::os::unix::fs::symlink(at("d"), at("e")).unwrap();
    let refused = |written: &str, read: &str| {
        let flags = [("port-file", written), ("access-file", read), ("listen", "127.0.0.1:1")];
        let told = told(&flags, "");
        told.iter().any(|it| it.contains("--port-file and --access-file name the same file"))
    };
    for other in ["./rules", "d/../rules", "hard", "soft"] {
        assert!(refused(&at(other), &rules), "{other}");
    }
    assert!(refused(&at("d/new"), &at("e/new")), "neither is there");
    assert!(!refused(&at("d/new"), &at("e/newer")));
    assert!(!refused(&at("d/rules"), &rules));
    let sources = Sources::new(BTreeMap::from([("audit-log", at("./c.toml"))]), []).unwrap();
    let sources = sources.with_file(config.into(), "ephemeral = true\n").unwrap();
    let settings = Settings::resolve(&sources).unwrap();
    let told = of_a_server(&settings).into_iter().map(|it| it.failure.in_one_line());
    assert!(told.into_iter().any(|it| it.contains("names the configuration")), "its own file");
}
