//! Precedence of sources, and refused settings.

use std::collections::BTreeMap;

use super::*;

fn flags(pairs: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    pairs.iter().map(|(key, text)| (*key, (*text).to_owned())).collect()
}

fn sources(flag: &[(&'static str, &str)], environment: &[(&str, &str)], file: &str) -> Sources {
    try_sources(flag, environment, file).unwrap()
}

fn try_sources(
    flag: &[(&'static str, &str)],
    environment: &[(&str, &str)],
    file: &str,
) -> Result<Sources, Failure> {
    let environment = environment.iter().map(|(name, text)| ((*name).into(), (*text).into()));
    Sources::new(flags(flag), environment)?.with_file(PathBuf::from("c.toml"), file)
}

fn origin(settings: &Settings, key: &str) -> Origin {
    settings.in_force.iter().find(|it| it.key == key).unwrap().origin.clone()
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = "# mine\nttl = \"40s\"\n";
    let all = sources(&[("ttl", "20s")], &[("COORDINATOR_TTL", "30s")], file);
    let settings = Settings::resolve(&all).unwrap();
    assert_eq!(settings.ttl.length(), Duration::from_secs(20));
    assert_eq!(origin(&settings, "ttl"), Origin::Flag);

    let settings = Settings::resolve(&sources(&[], &[("COORDINATOR_TTL", "30s")], file)).unwrap();
    assert_eq!(settings.ttl.length(), Duration::from_secs(30));
    assert_eq!(origin(&settings, "ttl"), Origin::Environment("COORDINATOR_TTL".to_owned()));

    let settings = Settings::resolve(&sources(&[], &[], file)).unwrap();
    assert_eq!(settings.ttl.length(), Duration::from_secs(40));
    assert_eq!(origin(&settings, "ttl"), Origin::File("c.toml".into(), 2));

    let settings = Settings::resolve(&sources(&[], &[], "")).unwrap();
    assert_eq!(settings.ttl, Ttl::default());
    assert_eq!(origin(&settings, "ttl"), Origin::Default);
}

#[test]
fn rust_log_beats_the_file_and_the_state_directory_does_not() {
    let foreign = [("RUST_LOG", "debug"), ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")];
    let settings = Settings::resolve(&sources(&[], &foreign, "")).unwrap();
    assert_eq!(settings.log.0, "debug");
    assert_eq!(settings.data_dir, PathBuf::from("/var/lib/a"));

    let file = "log = \"warn\"\ndata-dir = \"/srv\"\n";
    let settings = Settings::resolve(&sources(&[], &foreign, file)).unwrap();
    assert_eq!(settings.log.0, "debug");
    assert_eq!(settings.data_dir, PathBuf::from("/srv"));

    let ours = [("RUST_LOG", "debug"), ("COORDINATOR_LOG", "error")];
    assert_eq!(Settings::resolve(&sources(&[], &ours, file)).unwrap().log.0, "error");
}

#[test]
fn state_is_kept_in_the_users_state_directory_by_default() {
    let of = |pairs: &[(&str, &str)]| Settings::resolve(&sources(&[], pairs, "")).unwrap().data_dir;
    assert_eq!(of(&[("HOME", "/home/ann")]), PathBuf::from("/home/ann/.local/state/coordinator"));
    let xdg = [("HOME", "/home/ann"), ("XDG_STATE_HOME", "/state")];
    assert_eq!(of(&xdg), PathBuf::from("/state/coordinator"));
}

#[test]
fn a_log_filter_for_others_counts_as_not_set() {
    for others in ["sqlx", "hyper,tower=debug", "myapp=debug", "[span{field=x}]=debug"] {
        let all = sources(&[], &[("RUST_LOG", others)], "log = \"warn\"");
        let settings = Settings::resolve(&all).unwrap();
        assert_eq!(settings.log.0, "warn", "{others}");
        let alone = Settings::resolve(&sources(&[], &[("RUST_LOG", others)], "")).unwrap();
        assert_eq!((alone.log.0.as_str(), origin(&alone, "log")), ("info", Origin::Default));
    }
}

#[test]
fn without_a_home_there_is_no_place_for_state() {
    let of = |pairs: &[(&str, &str)]| Settings::resolve(&sources(&[], pairs, "")).unwrap().data_dir;
    assert_eq!(of(&[]), PathBuf::new());
    assert_eq!(of(&[("HOME", "home/ann")]), PathBuf::new(), "another one in each directory");
    let relative = [("HOME", "/home/ann"), ("XDG_STATE_HOME", "state")];
    assert_eq!(of(&relative), PathBuf::from("/home/ann/.local/state/coordinator"));
}

#[test]
fn a_tilde_is_the_home_directory_wherever_a_path_is_written() {
    let home = ("HOME", "/home/ann");
    let file = "data-dir = \"~/state\"\nport-file = \"~\"\n";
    let settings = Settings::resolve(&sources(&[], &[home], file)).unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("/home/ann/state"));
    assert_eq!(settings.port_file, Some(PathBuf::from("/home/ann")));
    let variable = [home, ("COORDINATOR_DATA_DIR", "~/state")];
    let settings = Settings::resolve(&sources(&[("port-file", "~/p")], &variable, "")).unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("/home/ann/state"));
    assert_eq!(settings.port_file, Some(PathBuf::from("/home/ann/p")));
    // Not a path, and not the home of whoever runs this.
    let settings = Settings::resolve(&sources(&[("as", "~/x"), ("data-dir", "~bob")], &[home], ""));
    let settings = settings.unwrap();
    assert_eq!(settings.identity.unwrap().as_str(), "~/x");
    assert_eq!(settings.data_dir, PathBuf::from("~bob"));
    let homeless = Settings::resolve(&sources(&[], &[], file)).unwrap_err().plain();
    assert!(homeless.starts_with("error: c.toml:1: data-dir is \"~/state\": HOME is not set\n"));
}

#[test]
fn several_servers_are_a_text_or_a_list_in_the_file_and_nothing_else_is_a_list() {
    let of = |file: &str| Settings::resolve(&sources(&[], &[], file)).unwrap().server.0;
    assert_eq!(of("server = [\"a:1\", \"b\"]"), "a:1,b:5625");
    assert_eq!(of("server = \"a:1,b\""), "a:1,b:5625");
    for bad in ["server = [1, 2]", "ttl = [\"5s\"]"] {
        let failure = try_sources(&[], &[], bad).unwrap_err();
        assert!(failure.plain().contains("takes a single value"), "{}", failure.plain());
    }
}

#[test]
fn an_unknown_key_of_the_file_is_refused_and_the_nearest_named() {
    let failure = try_sources(&[], &[], "\ndrain-timout = \"5s\"").unwrap_err();
    assert_eq!(
        failure.plain(),
        "error: c.toml:2: unknown setting \"drain-timout\"\n  hint: did you mean \
        \"drain-timeout\"?\n"
    );
    let failure = try_sources(&[], &[], "colour = true").unwrap_err();
    assert_eq!(
        failure.plain(),
        "error: c.toml:1: unknown setting \"colour\"\n  hint: `coordinator config` lists all \
        settings\n"
    );
}

#[test]
fn a_misspelt_variable_is_refused_and_those_of_kubernetes_are_not() {
    let failure = try_sources(&[], &[("COORDINATOR_LISTN", "x")], "").unwrap_err();
    assert_eq!(
        failure.plain(),
        "error: unknown setting COORDINATOR_LISTN in the environment\n  hint: did you mean \
        COORDINATOR_LISTEN?\n"
    );
    let others = [
        ("COORDINATOR_SERVICE_HOST", "10.0.0.1"),
        ("COORDINATOR_SERVICE_PORT", "5625"),
        ("COORDINATOR_PORT", "tcp://10.0.0.1:5625"),
        ("COORDINATOR_PORT_5625_TCP_ADDR", "10.0.0.1"),
        // As short as this, any name is near to one of ours.
        ("COORDINATOR_ID", "7"),
        ("COORDINATOR_IP", "10.0.0.1"),
        ("COORDINATOR_URL", "http://10.0.0.1"),
        ("COORDINATOR_TAG", "v7"),
        ("COORDINATOR_LOCK", "deploy"),
        ("COORDINATOR_FENCING_TOKEN", "7"),
        ("COORDINATOR_SESSION", "ab"),
    ];
    assert!(try_sources(&[], &others, "").is_ok());
}

#[test]
fn a_bad_value_is_told_with_its_place() {
    let told = |sources: &Sources| Settings::resolve(sources).unwrap_err().plain();
    let flag = told(&sources(&[("drain-timeout", "soon")], &[], ""));
    assert!(
        flag.starts_with(
            "error: --drain-timeout is \"soon\": not a duration; expected 10s, 5m or 1h30m\n"
        ),
        "{flag}"
    );
    let variable = told(&sources(&[], &[("COORDINATOR_TTL", "1s")], ""));
    assert!(
        variable.starts_with("error: COORDINATOR_TTL is \"1s\": a lease lasts from 2s to 1h\n"),
        "{variable}"
    );
    let file = told(&sources(&[], &[], "connections-max = 0"));
    assert!(
        file.starts_with("error: c.toml:1: connections-max is \"0\": must be at least 1\n"),
        "{file}"
    );
}

#[test]
fn a_file_may_write_numbers_and_switches_as_toml_does() {
    let file = "connections-max = 12\nephemeral = true\nttl = 30\n";
    let settings = Settings::resolve(&sources(&[], &[], file)).unwrap();
    assert_eq!(settings.connections_max, 12);
    assert!(settings.ephemeral);
    assert_eq!(settings.ttl.length(), Duration::from_secs(30));
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line() {
    let told = try_sources(&[], &[], "ttl = \"5s\"\nlog = = 1\n").unwrap_err().plain();
    assert!(told.starts_with("error: c.toml:2: "), "{told}");
}

#[test]
fn no_setting_is_called_as_another_or_as_the_file() {
    let mut keys: Vec<&str> = TABLE.iter().map(|row| row.key).collect();
    keys.push(super::sources::FILE_FLAG);
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn a_file_without_end_is_no_configuration() {
    let (_, mistakes) = Sources::gather(flags(&[("config", "/dev/zero")]));
    let told: Vec<String> = mistakes.iter().map(Failure::plain).collect();
    assert!(told.iter().any(|it| it.contains("longer than 1 MiB")), "{told:?}");
}
