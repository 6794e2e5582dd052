//! The form of log lines, and the choice of them.

use super::*;

const LOOK: Look = Look { time: Time::Known, color: ColorChoice::Never, format: LogFormat::Text };

/// A line of a record without fields.
fn line(look: Look, level: Level, target: &str, text: &dyn fmt::Display) -> String {
    look.line(&Record::builder().level(level).target(target).args(format_args!("{text}")).build())
}

/// A line of a record with fields.
fn line_with(look: Look, fields: &[(&str, kv::Value<'_>)]) -> String {
    let mut record = Record::builder();
    record.level(Level::Info).target(OWN).args(format_args!("granted"));
    look.line(&record.key_values(&fields).build())
}

#[test]
fn a_filter_is_a_level_or_levels_by_target() {
    for good in ["info", "DEBUG", "off", "warn,coordinator=debug", "coordinator::server=trace", ""]
    {
        assert!(Filter::parse(good).is_ok(), "{good:?}");
    }
}

#[test]
fn a_misspelt_level_is_refused_instead_of_silencing_the_log() {
    assert!(Filter::parse("debgu").is_err());
    assert!(Filter::parse("info,coordinator=loud").is_err());
}

#[test]
fn a_line_has_1_kib_and_what_is_longer_is_cut_visibly() {
    let room = LINE_LEN_MAX - "INFO  ".len() - CUT.len() - 1;
    let line = |len| line(LOOK, Level::Info, OWN, &"x".repeat(len));
    assert_eq!(line(room), format!("INFO  {}\n", "x".repeat(room)));
    assert_eq!(line(room + 1), format!("INFO  {}{CUT}\n", "x".repeat(room)));
    assert_eq!(line(room + 1).len(), LINE_LEN_MAX);
    let of_locks = self::line(LOOK, Level::Info, OWN, &"🔒".repeat(LINE_LEN_MAX));
    assert!(of_locks.len() <= LINE_LEN_MAX && of_locks.ends_with(" … (cut)\n"), "{of_locks}");
}

#[test]
fn no_work_is_put_into_what_is_cut() {
    use std::cell::Cell;
    struct Steps<'a>(&'a Cell<usize>);
    impl fmt::Display for Steps<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for _ in 0..1_000_000 {
                self.0.set(self.0.get() + 1);
                f.write_str("step ")?;
            }
            Ok(())
        }
    }
    let steps = Cell::new(0);
    line(LOOK, Level::Info, OWN, &Steps(&steps));
    assert!(steps.get() <= LINE_LEN_MAX / "step ".len(), "{}", steps.get());
}

#[test]
fn a_line_is_one_line_and_shows_what_it_holds() {
    let text = "a\nINFO  forged\u{2028}\u{202e}\u{1b}[2J";
    let line = line(LOOK, Level::Warn, "elsewhere", &text);
    assert_eq!(line, "WARN  a\\nINFO  forged\\u{2028}\\u{202e}\\u{1b}[2J [elsewhere]\n");
}

#[test]
fn a_filter_for_others_is_not_ours() {
    for ours in ["debug", "hyper=warn,info", "coordinator=debug", "coordinator::server", "Off"] {
        assert!(Filter::concerns_us(ours), "{ours:?}");
    }
    for others in ["sqlx", "hyper,tower=debug", "myapp=debug", "[span{field=x}]=debug", ""] {
        assert!(!Filter::concerns_us(others), "{others:?}");
    }
}

#[test]
fn fields_stand_behind_the_words_and_a_name_that_comes_again_goes_on() {
    let fields = [
        ("lock", kv::Value::from("deploy")),
        ("lock", kv::Value::from("a \"b\"")),
        ("token", kv::Value::from(7u64)),
    ];
    let text = line_with(LOOK, &fields);
    assert_eq!(text, "INFO  granted lock=\"deploy\",\"a \\\"b\\\"\" token=7\n");
}

#[test]
fn fields_are_escaped_and_cut_as_words_are() {
    let forged = "\u{202e}".repeat(LINE_LEN_MAX);
    let text = line_with(LOOK, &[("lock", kv::Value::from(forged.as_str()))]);
    assert!(text.len() <= LINE_LEN_MAX && text.ends_with(" … (cut)\n"), "{text}");
    assert!(!text.contains('\u{202e}'));
}

#[test]
fn times_are_left_to_the_journal_only_where_the_stream_is_its_own() {
    let file = tempfile::tempfile().unwrap();
    let stat = rustix::fs::fstat(&file).unwrap();
    let own = format!("{}:{}", stat.st_dev, stat.st_ino);
    assert!(is_stream(&file, &own));
    let others = format!("{}:{}", stat.st_dev, stat.st_ino + 1);
    for other in [others.as_str(), "", "8:1", "nonsense"] {
        assert!(!is_stream(&file, other), "{other}");
    }
}

/// The object in a line of JSON.
fn object(line: &str) -> serde_json::Value {
    assert!(line.ends_with('\n') && line.len() <= LINE_LEN_MAX, "{line}");
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_line_of_json_is_an_object_with_stable_keys_and_its_fields() {
    let look = Look { format: LogFormat::Json, ..LOOK };
    let fields = [
        ("lock", kv::Value::from("a\"b")),
        ("token", kv::Value::from(7u64)),
        ("session", kv::Value::from_display(&"00ff")),
    ];
    let seen = object(&line_with(look, &fields));
    let ts = seen["ts"].as_str().unwrap();
    assert!(humantime::parse_rfc3339(ts).is_ok(), "{ts}");
    assert_eq!(seen["level"], "info");
    assert_eq!(seen["target"], "coordinator::log");
    assert_eq!(seen["msg"], "granted");
    assert_eq!(seen["lock"], "a\"b");
    assert_eq!(seen["token"], 7);
    assert_eq!(seen["session"], "00ff");
    let several = [("lock", kv::Value::from("a")), ("lock", kv::Value::from("b"))];
    assert_eq!(object(&line_with(look, &several))["lock"], serde_json::json!(["a", "b"]));
}

#[test]
fn a_line_of_json_that_would_be_too_long_is_an_object_all_the_same() {
    let look = Look { format: LogFormat::Json, ..LOOK };
    for len in 0..LINE_LEN_MAX * 2 {
        for letter in ["x", "\n"] {
            let seen = object(&line(look, Level::Warn, OWN, &letter.repeat(len)));
            let msg = seen["msg"].as_str().unwrap();
            assert!(msg == letter.repeat(len) || msg.ends_with(CUT), "{len}: {msg}");
        }
    }
    let long = "\u{1b}".repeat(LINE_LEN_MAX);
    let name = kv::Value::from(long.as_str());
    let fields = [("lock", name.clone()), ("identity", name.clone()), ("note", name)];
    let seen = object(&line_with(look, &fields));
    assert_eq!(seen["msg"], "granted");
    assert_eq!(seen["cut"], true);
}
