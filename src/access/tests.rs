use super::*;
use crate::types::LockName;

fn lock(name: &str) -> LockName {
    LockName::new(name).unwrap()
}

fn digest(byte: u8) -> Digest {
    format!("sha256:{}", format!("{byte:02x}").repeat(32)).parse().unwrap()
}

fn rule(verbs: &[Verb], names: &str) -> Rule {
    Rule { verbs: verbs.iter().copied().collect(), names: Names::new(names).unwrap(), line: 1 }
}

fn rules(all: &[(&[Verb], &str)]) -> Rules {
    let mut rules = Rules::default();
    for (verbs, names) in all {
        rules.add(rule(verbs, names));
    }
    rules
}

#[test]
fn what_no_rule_allows_is_denied() {
    let rules = rules(&[(&[Verb::See], "billing/*")]);
    assert!(rules.may(Verb::See, &lock("billing/may")).is_some());
    for verb in [Verb::Lock, Verb::Share, Verb::Break, Verb::Admin] {
        assert!(rules.may(verb, &lock("billing/may")).is_none(), "{verb}");
    }
    assert!(Rules::default().may(Verb::See, &lock("billing/may")).is_none());
}

#[test]
fn who_may_lock_may_share_and_not_the_other_way_round() {
    let rules = rules(&[(&[Verb::Lock], "a"), (&[Verb::Share], "b")]);
    assert!(rules.may(Verb::Share, &lock("a")).is_some());
    assert!(rules.may(Verb::Lock, &lock("b")).is_none());
}

#[test]
fn a_prefix_includes_what_goes_on_behind_its_slash_and_nothing_else() {
    let below = Names::new("secret/foo/*").unwrap();
    for (name, is_included) in [
        ("secret/foo/bar", true),
        ("secret/foo/bar/baz", true),
        ("secret/foo//", true),
        ("secret/foo", false),
        ("secret/foo/", false),
        ("secret/foo000", false),
        ("secret/foobar/baz", false),
        ("secret", false),
        ("secret/f", false),
        ("x/secret/foo/bar", false),
        ("SECRET/foo/bar", false),
        ("secret\u{2044}foo/bar", false),
    ] {
        assert_eq!(below.include(&lock(name)), is_included, "{name}");
    }
}

#[test]
fn a_star_elsewhere_is_a_mistake() {
    for text in ["billing*", "a/*/b", "**", "*/", "a/**", "/*", "", "a*b", "*a", "a\n"] {
        assert!(Names::new(text).is_err(), "{text:?}");
    }
    for text in ["*", "a/*", "a", "/a/*", "a//*", "a b/ü"] {
        assert_eq!(Names::new(text).unwrap().to_string(), text);
    }
}

/// A few names over few letters, so that prefixes meet.
fn all_names() -> Vec<LockName> {
    let mut all = vec![String::new()];
    let mut begun = all.clone();
    for _ in 0..5 {
        begun = begun.iter().flat_map(|text| ["a", "b", "/"].map(|c| text.clone() + c)).collect();
        all.extend(begun.iter().cloned());
    }
    all.iter().filter_map(|text| LockName::new(text.as_str()).ok()).collect()
}

#[test]
fn the_index_finds_what_a_look_at_each_rule_finds() {
    let patterns = ["a", "a/*", "a/b/*", "b", "/a/*", "a//*", "ab/*", "a/b", "b/a/*", "b/*"];
    let mut rng = 1_u64;
    for _ in 0..300 {
        let mut all = Vec::new();
        for pattern in patterns {
            rng =
                rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if rng >> 62 == 0 {
                let verb = Verb::ALL[usize::try_from(rng >> 40).unwrap() % 4];
                all.push(rule(&[verb], pattern));
            }
        }
        let mut rules = Rules::default();
        for rule in &all {
            rules.add(rule.clone());
        }
        for name in all_names() {
            for verb in Verb::ALL {
                let naive =
                    all.iter().any(|rule| rule.verbs.allows(verb) && rule.names.include(&name));
                let found = rules.may(verb, &name);
                assert_eq!(found.is_some(), naive, "{verb} {name} {all:?}");
                assert!(found.is_none_or(|it| it.verbs.allows(verb) && it.names.include(&name)));
            }
        }
    }
}

fn principal(name: &str) -> Principal {
    let name = PrincipalName::new(name).unwrap();
    Principal { name, rules: Rules::default(), quotas: Quotas::default() }
}

fn name_of(access: &Access, credential: Option<Digest>, certified: &[&str]) -> Option<String> {
    let certified = certified.iter().map(|name| CertificateName::new(name).unwrap()).collect();
    let found = access.principal(&Proof { credential, certified })?;
    Some(found.name.to_string())
}

#[test]
fn all_that_is_shown_has_to_prove_the_same_principal() {
    let mut access = Access::closed();
    let (billing, cron) = (digest(1), digest(2));
    let (uri, dns) = ("uri:spiffe://prod/billing", "dns:Billing.internal");
    let names = [uri, dns].map(|name| CertificateName::new(name).unwrap());
    access.add(principal("billing"), [billing], names);
    access.add(principal("cron"), [cron], [CertificateName::new("dns:cron").unwrap()]);
    assert_eq!(name_of(&access, None, &[]), None, "nobody said what anyone may do");
    access.set_anyone(Rules::default());

    let found = |credential, certified: &[&str]| name_of(&access, credential, certified);
    assert_eq!(found(None, &[]).unwrap(), "anyone");
    assert_eq!(found(None, &["dns:nobody"]).unwrap(), "anyone");
    assert_eq!(found(Some(billing), &[]).unwrap(), "billing");
    assert_eq!(found(Some(billing), &["dns:billing.internal", uri]).unwrap(), "billing");
    assert_eq!(found(None, &["dns:nobody", "dns:BILLING.internal"]).unwrap(), "billing");
    assert_eq!(found(Some(digest(3)), &[]), None, "a credential of nobody is not nothing");
    assert_eq!(found(Some(digest(3)), &[uri]), None);
    assert_eq!(found(Some(cron), &[uri]), None);
    assert_eq!(found(None, &[uri, "dns:cron"]), None);
}

#[test]
fn without_an_access_file_anyone_may_do_everything() {
    let access = Access::open();
    let anyone = access.principal(&Proof::default()).unwrap();
    for verb in Verb::ALL {
        assert!(anyone.rules.may(verb, &lock("a")).is_some() && anyone.rules.may_somewhere(verb));
    }
    assert!(anyone.rules.may_administer().is_some());
}

#[test]
fn a_principal_has_a_plain_name_of_at_most_32_bytes() {
    let longest = "a".repeat(PRINCIPAL_NAME_LEN_MAX);
    assert!(PrincipalName::new(&longest).is_ok() && PrincipalName::new("b-2_x.y").is_ok());
    for text in ["", "Billing", "a b", "ü", "a/b", &(longest + "a")] {
        assert!(PrincipalName::new(text).is_err(), "{text:?}");
    }
}

#[cfg(feature = "access")]
mod file {
    use std::collections::HashSet;

    use super::*;
    use crate::types::Credential;

    const FILE: &str = r#"
[[principal]]
name = "billing"
credentials = ["sha256:0101010101010101010101010101010101010101010101010101010101010101"]
certificates = ["uri:spiffe://prod/billing"]
may = [
  { do = ["lock", "see"], names = ["billing/*", "cron/nightly"] },
  { do = ["share"], names = ["config/*"] },
]
sessions-max = 200
connections-max = 4_00
requests-per-second = 5000

[[principal]]
name = "oncall"
credentials = ["sha256:0202020202020202020202020202020202020202020202020202020202020202"]
may = [ { do = ["see", "break"], names = ["*"] }, { do = ["admin"] } ]

[anyone]
may = [ { do = ["see"], names = ["public/*"] } ]
"#;

    #[test]
    fn a_file_says_who_may_do_what_and_in_which_line() {
        let Parsed { access, doubts } = parse(FILE).unwrap();
        assert_eq!(doubts, []);
        let billing = access.named("billing").unwrap();
        let line = |verb, name| billing.rules.may(verb, &lock(name)).map(|rule| rule.line);
        assert_eq!(line(Verb::Lock, "cron/nightly"), Some(7));
        assert_eq!(line(Verb::Share, "config/x"), Some(8));
        assert_eq!((line(Verb::Lock, "config/x"), line(Verb::Break, "billing/a")), (None, None));
        let quotas = billing.quotas;
        assert_eq!((quotas.sessions_max, quotas.connections_max), (Some(200), Some(400)));
        assert_eq!(quotas.requests_per_second, Some(5_000));
        assert_eq!(name_of(&access, Some(digest(1)), &[]).unwrap(), "billing");
        let oncall = access.named("oncall").unwrap();
        assert!(
            oncall.rules.may_administer().is_some() && billing.rules.may_administer().is_none()
        );
        assert!(oncall.rules.may(Verb::Admin, &lock("a")).is_some());
        let anyone = access.principal(&Proof::default()).unwrap();
        assert!(anyone.rules.may(Verb::See, &lock("public/a")).is_some());
        assert!(parse("").unwrap().access.principal(&Proof::default()).is_none());
    }

    /// The mistakes of one principal with these lines, from line 3 on.
    fn mistakes(lines: &str) -> Vec<String> {
        let text = format!("[[principal]]\nname = \"a\"\n{lines}\n");
        parse(&text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_with_what_to_write() {
        for (lines, told) in [
            ("credential = []", "3: a principal has no \"credential\"; did you mean credentials?"),
            (
                "may = [ { do = [\"lok\"], names = [\"a\"] } ]",
                "3: there is no \"lok\" to be allowed; there is lock, share, see, break, admin",
            ),
            (
                "may = [ { do = [\"lock\"], names = [\"billing*\"] } ]",
                "3: \"billing*\": a star may only stand alone or behind the last slash; write a name, \
                PREFIX/* for all below it, or * for all",
            ),
            (
                "may = [ { do = [\"admin\", \"see\"], names = [\"a\"] } ]",
                "3: admin is about no lock; write it in a rule of its own, without names: \
                { do = [\"admin\"] }",
            ),
            ("sessions-max = 0", "3: sessions-max is a whole number from 1 on"),
            ("sessions-max = \"3\"", "3: sessions-max is a whole number from 1 on"),
            (
                "certificates = [\"cn:billing\"]",
                "3: \"cn:billing\": a certificate's name begins with uri: or dns:; write certificates = \
                [\"uri:spiffe://prod/billing\", \"dns:billing.internal\"]",
            ),
        ] {
            assert_eq!(mistakes(lines), [told]);
        }
        for lines in [
            "may = 3",
            "may = [3]",
            "may = [ { do = [\"lock\"] } ]",
            "may = [ { names = [\"a\"] } ]",
            "may = [ { do = [], names = [\"a\"] } ]",
            "may = [ { do = \"lock\", names = [\"a\"] } ]",
            "may = [ { do = [\"admin\"], names = [\"*\"] } ]",
            "credentials = [\"sha256:00\"]",
            "credentials = [1]",
            "certificates = [\"dns:*.internal\"]",
            "name = \"b\"",
            "x",
            "may = [",
        ] {
            assert_eq!(mistakes(lines).len(), 1, "{lines}: {:?}", mistakes(lines));
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_in_the_order_of_their_lines() {
        let lines =
            "credentials = [\"x\"]\nmay = [ { do = [\"a\", \"b\"], names = [] } ]\ncolour = 1";
        let told = mistakes(lines);
        let at: Vec<&str> = told.iter().map(|told| &told[..2]).collect();
        assert_eq!(at, ["3:", "4:", "4:", "5:"], "{told:?}");
    }

    #[test]
    fn a_credential_in_the_file_is_a_mistake_that_does_not_show_it() {
        let credential = Credential::from_random([9; 32]);
        let told = mistakes(&format!("credentials = [{:?}]", credential.reveal()));
        assert!(told[0].starts_with("3: this is the credential itself"), "{told:?}");
        assert!(!told[0].contains(&credential.reveal()[6..]));
    }

    #[test]
    fn no_proof_and_no_name_is_two_principals() {
        let same = "[[principal]]\nname = \"a\"\ncertificates = [\"dns:a\"]\n";
        let told = parse(&format!("{same}{same}")).unwrap_err();
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "5: a is in line 2 already; leave one of them out",
                "6: dns:a is in line 3 already; leave one of them out",
            ]
        );
        assert!(parse("[[principal]]\nname = \"anyone\"\n").is_err());
    }

    #[test]
    fn a_principal_has_at_most_four_credentials() {
        let list = |count: u8| {
            let all: Vec<String> = (0..count).map(|it| format!("\"{}\"", digest(it))).collect();
            mistakes(&format!("credentials = [{}]", all.join(", ")))
        };
        assert_eq!(list(4), [""; 0]);
        assert_eq!(list(5).len(), 1);
    }

    #[test]
    fn what_is_hardly_meant_is_told_and_is_no_mistake() {
        let Parsed { doubts, .. } = parse("[[principal]]\nname = \"a\"\n").unwrap();
        let told: Vec<String> = doubts.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["1: a has no proof, so nobody is a", "1: a may do nothing"]);
    }

    #[test]
    fn digests_of_different_credentials_are_different() {
        let all: HashSet<Digest> =
            (0..50).map(|byte| Digest::of(Credential::from_random([byte; 32]).reveal())).collect();
        assert_eq!(all.len(), 50);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(?s).{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_almost_right_file_makes_the_parser_panic(at in 0..FILE.len(), with in "(?s).{0,3}", cut in 0_usize..5) {
            if FILE.is_char_boundary(at) && FILE.is_char_boundary((at + cut).min(FILE.len())) {
                let text = format!("{}{with}{}", &FILE[..at], &FILE[(at + cut).min(FILE.len())..]);
                let _ = parse(&text);
            }
        }
    }

    /// The work of a file is bounded by its length: lines are not counted anew for each name in it.
    #[test]
    fn each_mistake_of_a_long_file_has_its_line() {
        let one = |number| {
            format!("[[principal]]\nname = \"p{number}\"\nmay = [ {{ do = [\"lok\"] }} ]\n")
        };
        let text: String = (0..20_000).map(one).collect::<Vec<_>>().concat();
        let mistakes = parse(&text).unwrap_err();
        let lines = mistakes.iter().map(|mistake| mistake.line);
        assert!(lines.eq((0..20_000).map(|number| 3 * number + 3)));
    }

    #[test]
    fn a_file_that_names_nobody_is_doubted() {
        for (text, is_doubted) in [("", true), ("# later\n", true), ("[anyone]\n", false)] {
            let doubts = parse(text).unwrap().doubts;
            let words = doubts.iter().any(|doubt| doubt.what.contains("names nobody"));
            assert_eq!(words, is_doubted, "{text:?}: {doubts:?}");
        }
    }

    #[test]
    fn that_anyone_may_break_or_administer_is_doubted() {
        for (verbs, names) in [("\"admin\"", ""), ("\"see\", \"break\"", ", names = [\"a\"]")] {
            let text = format!("[anyone]\nmay = [ {{ do = [{verbs}]{names} }} ]\n");
            let doubts = parse(&text).unwrap().doubts;
            assert_eq!(doubts.len(), 1, "{doubts:?}");
            assert!(doubts[0].what.starts_with("anyone who reaches it may "), "{doubts:?}");
        }
        let seen = parse("[anyone]\nmay = [ { do = [\"see\"], names = [\"*\"] } ]\n").unwrap();
        assert_eq!(seen.doubts, []);
    }
}
