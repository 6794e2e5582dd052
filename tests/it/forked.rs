//! A process that forks after it connected, as daemons do and multiprocessing: real forks, real sockets.

use std::env;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{self, Command};
use std::time::Duration;

use coordinator::types::LostReason;
use coordinator::{Client, Error, HoldState, LockGuard, Observer, blocking};
use daemonize::{Daemonize, Outcome};
use tokio::runtime::Builder;

use crate::support::{Server, start};

/// Tells this program to fork: the address of the coordinator, and where to report to.
const ROLE: &str = "TEST_FORKS_AT";
/// A short lease, so that keep-alives go out soon; longer than a busy machine stands still.
const TTL: Duration = Duration::from_secs(4);

/// Runs the test `name` again in a process of its own, which forks; gives what the other process says.
fn run_in_a_process_of_its_own(name: &str) {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let report_to = listener.local_addr().unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]);
    command.env(ROLE, format!("{},{report_to}", server.address));
    let running = start(command);
    let mut report = String::new();
    listener.accept().unwrap().0.read_to_string(&mut report).unwrap();
    let done = running.end();
    assert_eq!(done.code(), Some(0), "{}{}", done.out, done.err);
    assert_eq!(report, "all is well", "{}{}", done.out, done.err);
}

/// Where this process is to connect and to report to, if it is the one that forks.
fn role() -> Option<(String, String)> {
    let role = env::var(ROLE).ok()?;
    let (server, report_to) = role.split_once(',')?;
    Some((server.to_owned(), report_to.to_owned()))
}

/// Forks twice, as daemons do, and does this in the process that is left, which ends after it.
fn in_another_process(report_to: &str, work: impl FnOnce() -> Result<(), String>) {
    match Daemonize::new().execute() {
        Outcome::Parent(parent) => assert_eq!(parent.unwrap().first_child_exit_code, 0),
        Outcome::Child(child) => {
            let outcome = child.map_err(|error| error.to_string()).and_then(|_| work());
            let report = outcome.map_or_else(|failure| failure, |()| "all is well".to_owned());
            let _told = TcpStream::connect(report_to).unwrap().write_all(report.as_bytes());
            process::exit(0);
        }
    }
}

fn check(what: &str, is_so: bool) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(format!("not so: {what}")) }
}

fn is_forked<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Forked | Error::Lost { reason: LostReason::Forked, .. }))
}

#[test]
fn a_blocking_client_stays_with_the_process_that_connected() {
    let Some((server, report_to)) = role() else {
        return run_in_a_process_of_its_own(
            "forked::a_blocking_client_stays_with_the_process_that_connected",
        );
    };
    let client = blocking::Client::builder().ttl(TTL).connect(&server).unwrap();
    let observer = blocking::Observer::connect(&server).unwrap();
    let (kept, given) =
        (client.lock("kept").acquire().unwrap(), client.lock("given").acquire().unwrap());
    let mut both = Some((client, kept, given));
    in_another_process(&report_to, || {
        let (client, kept, given) = both.take().ok_or("taken")?;
        check("a guard is lost", kept.state() == HoldState::Lost(LostReason::Forked))?;
        let lost = kept.wait_lost(TTL);
        check("its loss is told", matches!(lost, Ok(Some(LostReason::Forked))))?;
        check("no release", is_forked(&given.release()))?;
        check("no request", is_forked(&client.lock("other").acquire()))?;
        check("no look", is_forked(&client.status("kept")))?;
        check("no look by what is connected", is_forked(&observer.locks()))?;
        drop((client, kept));
        let own = blocking::Client::connect(&server).map_err(|error| error.to_string())?;
        let busy = own.try_lock("kept").map_err(|error| error.to_string())?;
        check("it is held by the other process", busy.is_none())?;
        own.close().map_err(|error| error.to_string())
    });
    let (client, kept, given) = both.take().unwrap();
    // Longer than a lease: its thread and its socket are what they were.
    assert_eq!(kept.wait_lost(TTL * 3 / 2).unwrap(), None);
    assert_eq!(observer.locks().unwrap().len(), 2);
    given.release().unwrap();
    kept.release().unwrap();
    client.close().unwrap();
}

#[test]
fn an_async_client_stays_with_the_process_that_connected() {
    let Some((server, report_to)) = role() else {
        return run_in_a_process_of_its_own(
            "forked::an_async_client_stays_with_the_process_that_connected",
        );
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let connect = async {
        let client = Client::builder().ttl(TTL).connect(&server).await?;
        let (kept, given) = (client.lock("kept").await?, client.lock("given").await?);
        Ok::<_, Error>((client, kept, given, Observer::connect(&server).await?))
    };
    let mut all = Some((runtime.block_on(connect).unwrap(), runtime));
    in_another_process(&report_to, || {
        let ((client, kept, given, observer), runtime) = all.take().ok_or("taken")?;
        check("a guard is lost", kept.state() == HoldState::Lost(LostReason::Forked))?;
        check("no release", is_forked(&runtime.block_on(given.release())))?;
        check("no request", is_forked(&runtime.block_on(client.try_lock("other"))))?;
        drop((client, kept, observer));
        drop(runtime);
        Ok(())
    });
    let ((client, kept, given, observer), runtime) = all.take().unwrap();
    runtime.block_on(async {
        assert!(tokio::time::timeout(TTL * 3 / 2, kept.lost()).await.is_err());
        assert_eq!(observer.locks().await.unwrap().len(), 2);
        given.release().await.unwrap();
        LockGuard::release(kept).await.unwrap();
        client.close().await.unwrap();
    });
}
