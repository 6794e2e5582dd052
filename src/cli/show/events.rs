//! `coordinator events`: what happens to requests, as it happens, a line each.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use coordinator::json::{event as event_as_json, happening as name, missed as missed_as_json};
use coordinator::types::Claim;
use coordinator::wire::Happening;
use coordinator::{Event, Happened};
use serde_json::{Value, json};

use super::ping::connect;
use crate::cli::arguments::EventsArgs;
use crate::cli::settings::Settings;
use crate::cli::text::answer;
use crate::cli::text::errors::{Attempt, Failure};
use crate::cli::text::output;
use crate::cli::text::visible;
use crate::cli::text::words;

/// Listens, and prints what it hears, until the connection or the reader is gone. Of several servers
/// another may lead next, so there the end of a connection is a gap. Ctrl-C ends the process as any other.
pub(crate) async fn run(args: EventsArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let lock = args.name.as_deref().unwrap_or_default();
    let attempt = Attempt { server: &settings.server.0, lock, ..Attempt::default() };
    let failed = |error| attempt.failed(&error);
    let observer = connect(settings).await?;
    let is_one_of_several = settings.server.0.contains(',');
    let mut events = observer.events(args.name.as_deref()).await.map_err(failed)?;
    while let Some(event) = events.next().await {
        let text = match (event.map_err(failed)?, args.json) {
            (Event::Happened(happened), false) => line(&happened),
            (Event::Missed { count }, false) => missed_line(count),
            (Event::Happened(happened), true) => visible::json(&as_json(&happened).to_string()),
            (Event::Missed { count }, true) => missed_as_json(count).to_string(),
            // What follows a gap is not what follows the last line: it is for whoever reads to listen anew.
            (Event::Gap { cause }, _) if !is_one_of_several => return Err(failed(cause)),
            (Event::Gap { cause }, false) => gap_line(&failed(cause)),
            (Event::Gap { cause }, true) => gap_as_json(&failed(cause)).to_string(),
        };
        match output::try_line(&text) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            error => answer::told(error)?,
        }
    }
    // What ends them is an error, and was told.
    Ok(ExitCode::SUCCESS)
}

/// `2026-11-24T10:31:07.123Z  granted    ann@build7:8123 #4  "deploy"  token 1881`.
fn line(happened: &Happened) -> String {
    let [at, what, who, claims, more] = cells(happened);
    let line = format!("{at}  {what:<9}  {who}  {claims}  {more}");
    line.trim_end().to_owned()
}

/// When, what, who, which locks, and what more is known.
pub(crate) fn cells(happened: &Happened) -> [String; 5] {
    let Happened { at_ms, session: _, identity, request, claims, what } = happened;
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(*at_ms)).unwrap_or(UNIX_EPOCH);
    let at = humantime::format_rfc3339_millis(at).to_string();
    let who = format!("{} #{request}", words::who(identity, ""));
    let more = match what {
        Happening::Queued { position } => format!("{} in line", words::ordinal(*position)),
        Happening::Granted { token } | Happening::Released { token } => format!("token {token}"),
        Happening::Lost { token, reason } => format!("token {token}  {reason}"),
        Happening::Rejected { code, message } => {
            format!("{code}: {}", visible::escaped(message))
        }
        _ => String::new(),
    };
    [at, name(what).to_owned(), who, claims_text(claims), more]
}

/// `… 2 events dropped: not read in time`.
pub(crate) fn missed_line(count: u64) -> String {
    format!("… {} dropped: not read in time", words::count(count, "event"))
}

/// `… gap: no coordinator leads at a:5625,b:5625 (…): what happens meanwhile is not told`.
fn gap_line(cause: &Failure) -> String {
    format!("… gap: {}: what happens meanwhile is not told", visible::escaped(cause.parts().0))
}

fn gap_as_json(cause: &Failure) -> Value {
    json!({"what": "gap", "cause": cause.parts().0})
}

/// `"deploy", "config" shared`.
fn claims_text(claims: &[Claim]) -> String {
    let claim = |claim: &Claim| match words::mode(claim.mode) {
        None => visible::quoted(claim.name.as_str()),
        Some(mode) => format!("{} {mode}", visible::quoted(claim.name.as_str())),
    };
    claims.iter().map(claim).collect::<Vec<_>>().join(", ")
}

fn as_json(happened: &Happened) -> Value {
    let Happened { at_ms, session, identity, request, claims, what } = happened;
    event_as_json(*at_ms, (*session, identity), (*request, claims), what)
}

#[cfg(test)]
mod tests {
    use coordinator::types::{FencingToken, LostReason, RejectionCode, RequestId, SessionId};
    use coordinator::types::{LockName, Mode};

    use super::*;

    fn event(what: Happening) -> Happened {
        let claim = |name, mode| Claim { name: LockName::new(name).unwrap(), mode };
        let gpu = Mode::Permits { take: 1, of: 4 };
        Happened {
            at_ms: 1_795_516_267_123,
            session: SessionId(0x2a),
            identity: "ann@build7:8123".parse().unwrap(),
            request: RequestId(4),
            claims: vec![claim("deploy", Mode::Exclusive), claim("gpu", gpu)],
            what,
        }
    }

    #[test]
    fn a_line_says_when_what_who_and_which_locks() {
        let about = "ann@build7:8123 #4  \"deploy\", \"gpu\" 1 of 4 permits";
        let line = |what| line(&event(what));
        let at = "2026-11-24T10:31:07.123Z";
        assert_eq!(line(Happening::Requested), format!("{at}  requested  {about}"));
        let queued = Happening::Queued { position: 3 };
        assert_eq!(line(queued), format!("{at}  queued     {about}  3rd in line"));
        let granted = Happening::Granted { token: FencingToken(1881) };
        assert_eq!(line(granted), format!("{at}  granted    {about}  token 1881"));
        let lost =
            Happening::Lost { token: FencingToken(1881), reason: LostReason::from_number(1) };
        assert_eq!(line(lost), format!("{at}  lost       {about}  token 1881  Expired"));
        let rejected = Happening::Rejected {
            code: RejectionCode::from_number(1),
            message: "\"gpu\" is busy".to_owned(),
        };
        assert_eq!(line(rejected), format!("{at}  rejected   {about}  Busy: \"gpu\" is busy"));
        let missed = missed_line(2);
        assert_eq!(missed, "… 2 events dropped: not read in time");
    }

    #[test]
    fn programs_get_what_is_described() {
        let described = include_str!("../../../docs/status-json.md");
        let all = [
            event(Happening::Requested),
            event(Happening::Queued { position: 3 }),
            event(Happening::Granted { token: FencingToken(1881) }),
            event(Happening::Released { token: FencingToken(1881) }),
            event(Happening::Cancelled),
            event(Happening::Lost { token: FencingToken(1881), reason: LostReason::Expired }),
            event(Happening::Rejected { code: RejectionCode::Busy, message: "busy".to_owned() }),
        ];
        let gap = gap_as_json(&Failure::usage("it closed the connection"));
        for json in all.iter().map(as_json).chain([missed_as_json(2), gap]) {
            let what = json["what"].as_str().unwrap();
            assert!(described.contains(&format!("\n| `{what}` |")), "{what} is not described");
            for name in json.as_object().unwrap().keys() {
                assert!(described.contains(&format!("`{name}`")), "{name} is not described");
            }
            assert!(!json.to_string().contains('\n'));
        }
        let lost = as_json(&all[5]);
        assert_eq!((&lost["reason"], &lost["token"]), (&json!("Expired"), &json!(1881)));
        assert_eq!(lost["claims"][1]["mode"]["of"], 4);
        assert_eq!(lost["session"], "0000000000000000000000000000002a");
    }
}
