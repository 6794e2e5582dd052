//! The number of permits is changed while they are in use: nothing fails by it, whoever is first.

use std::fs;

use rustix::process::Signal;

use crate::support::{Running, Server, run, start};

/// Somebody who holds one of `of` permits, until told to end.
fn holder(server: &Server, of: &str, held: u64) -> Running {
    let words = ["lock", "--as", "old", "uploads", "--permits", of, "--", "sleep", "60"];
    let holder = start(server.client(&words));
    crate::support::eventually("it holds", || {
        (server.lock("uploads")?["holder_count"] == held).then_some(())
    });
    holder
}

#[test]
fn a_job_with_another_number_of_permits_waits_and_runs_and_none_fails() {
    let server = Server::start();
    let old = [holder(&server, "3", 1), holder(&server, "3", 2)];
    let log = server.home.path("log");
    let job = |of: &'static str| {
        let script = format!("echo {of} >>{}", log.display());
        let words = ["lock", "-w", "60", "uploads", "--permits", of, "-c", &script];
        start(server.client(&words))
    };
    let new = job("5");
    server.waited_for_by("uploads", 1);
    // There is room for it, but it came later.
    let last = job("3");
    server.waited_for_by("uploads", 2);

    let busy = run(server.client(&["lock", "-n", "uploads", "--permits", "5", "--", "true"]));
    assert_eq!(busy.code(), Some(75));
    let why = "error: \"uploads\" is busy: in use as a semaphore of 3, and you asked for a semaphore of 5\n";
    assert!(busy.err.starts_with(why), "{}", busy.err);
    let plain = run(server.client(&["lock", "-w", "0.1", "uploads", "--", "true"]));
    assert_eq!(plain.code(), Some(75));
    assert!(plain.err.contains(": in use as a semaphore of 3, and you asked for a plain lock"));
    let status = run(server.client(&["status", "uploads"]));
    let line = "in use as a semaphore of 3; the waiter at place 1 asks for a semaphore of 5";
    assert!(status.out.contains(line), "{}", status.out);

    for holder in old {
        assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "", "before its turn");
        holder.signal(Signal::TERM);
        assert_eq!(holder.end().code(), Some(143));
    }
    assert_eq!(new.end().code(), Some(0));
    assert_eq!(last.end().code(), Some(0));
    assert_eq!(fs::read_to_string(&log).unwrap(), "5\n3\n");
}

#[test]
fn more_permits_than_there_are_stay_the_users_mistake() {
    let server = Server::start();
    let words = ["lock", "uploads", "--permits", "3", "--take", "4", "--", "true"];
    assert_eq!(run(server.client(&words)).code(), Some(2));
}
