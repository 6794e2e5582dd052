//! What is asked for over HTTP that no message asks for.

use super::*;

fn entitle(bench: &Bench, name: Option<&str>, errand: Errand) -> Result<(), Option<String>> {
    let credential = name.map(|name| Digest::of(credential(name).reveal()));
    let proof = Proof { credential, ..Proof::default() };
    match bench.entitle(proof, errand) {
        Ok(_) => Ok(()),
        Err(Unentitled::Unproven(_)) => Err(None),
        Err(Unentitled::Denied(denied)) => Err(Some(denied.to_string())),
        Err(Unentitled::SlowDown) => Err(Some("slow down".to_owned())),
    }
}

/// Rules A3 and A4.
#[test]
fn who_administers_and_who_sees_all_is_said_by_the_rules_alone() {
    let bench = bench();
    let no = |why: &str| Err(Some(why.to_owned()));
    for (who, administers, sees_all) in [
        ("ops", Ok(()), no("ops may not see anything")),
        ("bob", no("bob may not administer the coordinator"), Ok(())),
        ("ann", no("ann may not administer the coordinator"), no("ann may not see anything")),
        // She may see one, and so not all of them.
        ("eve", no("eve may not administer the coordinator"), no("eve may not see anything")),
        ("mallory", Err(None), Err(None)),
    ] {
        assert_eq!(entitle(&bench, Some(who), Errand::Administer), administers, "{who}");
        assert_eq!(entitle(&bench, Some(who), Errand::SeeAll), sees_all, "{who}");
    }
    assert_eq!(entitle(&bench, None, Errand::SeeAll), Err(None), "nobody is anyone here");
    let denials: Vec<u64> = bench.denials().into_iter().map(|(_, count)| count).collect();
    assert_eq!(denials.iter().sum::<u64>(), 6, "each is counted: {denials:?}");
    let open = Bench::new();
    assert_eq!(entitle(&open, None, Errand::Administer), Ok(()), "there are no rules");
}

/// Rule A4.
#[test]
fn an_errand_that_is_denied_counts_as_a_request() {
    let bench = Bench::ruled(access(&[("ann", "requests-per-second = 3"), BOB]));
    let denied = || entitle(&bench, Some("ann"), Errand::SeeAll).unwrap_err().unwrap();
    for _ in 0..3 {
        assert_eq!(denied(), "ann may not see anything");
    }
    assert_eq!(denied(), "slow down");
    let denials = bench.denials().into_iter().map(|(_, count)| count);
    assert_eq!(denials.sum::<u64>(), 3, "the logs have no more");
    assert_eq!(bench.figures().told.slowed_down, 1);
    bench.pass(Duration::from_secs(1));
    assert_eq!(denied(), "ann may not see anything");
}
