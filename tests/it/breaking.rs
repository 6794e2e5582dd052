//! Taking locks away over HTTP and by command: what is answered is what has become of it.

use std::fs;

use crate::access::{credential, principal};
use crate::port::{BOB, Port, private};
use crate::support::{Home, eventually, run, start};

/// May break and see everything.
const OPS: &str = "may = [ { do = [\"see\", \"break\"], names = [\"*\"] } ]";

/// A coordinator that keeps its state in `data` of its home.
fn durable() -> Port {
    let home = Home::new();
    private(&home.path("access.toml"), &(principal("bob", BOB) + &principal("ops", OPS)));
    for name in ["bob", "ops"] {
        private(&home.path(name), credential(name).reveal());
    }
    Port::start_with(home, "--data-dir data --access-file access.toml")
}

fn token_of(port: &Port, lock: &str) -> Option<u64> {
    port.get(&format!("/api/v1/locks/{lock}"), Some("bob")).json()["lock"]["holders"][0]["token"]
        .as_u64()
}

/// Rule R11.
#[test]
fn all_locks_that_end_together_are_named_to_whoever_may_see_them() {
    let port = durable();
    // On a busy machine the event that names them may come too late to be told.
    let all_are_named = |by_http: bool| {
        let _holder = start(port.client("bob", &["hold", "a/x", "--and", "a/y", "--and", "a/z"]));
        let token = eventually("they are held", || token_of(&port, "a%2Fx"));
        let are_named = if by_http {
            let done = port.revoke(Some("ops"), "a%2Fy", token, "stuck");
            assert_eq!(done.status, 200, "{done:?}");
            done.json()["locks"] == serde_json::json!(["a/x", "a/y", "a/z"])
        } else {
            let number = token.to_string();
            let done = run(port.client("ops", &["release", "a/y", "--force", "--token", &number]));
            assert_eq!(done.code(), Some(0), "{}", done.err);
            let from = format!("from the holder with token {token}\n");
            done.out == format!("revoked \"a/x\", \"a/y\", \"a/z\" {from}")
        };
        eventually("they are free", || token_of(&port, "a%2Fz").is_none().then_some(()));
        are_named
    };
    for by_http in [true, false] {
        eventually("all are named", || all_are_named(by_http).then_some(()));
    }
}

/// Rule R11.
#[test]
fn a_revocation_that_waits_for_the_disk_is_not_called_failed_and_is_done_later() {
    let port = durable();
    let _all = port.contended("bob", "x", 1);
    let token = token_of(&port, "x").unwrap();
    let (data, away) = (port.server.home.path("data"), port.server.home.path("away"));
    fs::rename(&data, &away).unwrap();
    let answer = port.revoke(Some("ops"), "x", token, "stuck");
    assert_eq!((answer.status, answer.code().as_str()), (504, "NotKnown"), "{answer:?}");
    let number = token.to_string();
    let done = run(port.client("ops", &["release", "x", "--force", "--token", &number]));
    assert_eq!(done.code(), Some(69), "{}", done.err);
    assert!(done.err.contains("not known whether \"x\" was revoked"), "{}", done.err);
    assert_eq!(token_of(&port, "x"), Some(token), "nothing is decided without the disk");
    fs::rename(&away, &data).unwrap();
    eventually("it is revoked once the disk is back", || {
        (token_of(&port, "x")? > token).then_some(())
    });
}
