//! `coordinator members`: who takes part in a cluster, and who leads it, as etcd has it.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coordinator::election::{MemberEntry, NotLost, Roll};
use coordinator::etcd::EtcdError;
use serde_json::json;

use crate::cli::arguments::{MembersArgs, TakeoverArgs};
use crate::cli::settings::Settings;
use crate::cli::text::answer;
use crate::cli::text::errors::{Failure, exit};
use crate::cli::text::table::Table;
use crate::cli::text::words;

/// Asks etcd, and prints a line for each.
pub(crate) async fn run(args: MembersArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let Some(cluster) = &settings.cluster else {
        let failure = Failure::usage("no cluster is named");
        return Err(failure.hint("coordinator members --cluster NAME --etcd URL,…"));
    };
    let roll = Roll::read(cluster, settings.arbiter()?).await.map_err(|error| failed(&error))?;
    let now = SystemTime::now();
    if args.json {
        answer::line(&format!("{:#}", as_json(&cluster.to_string(), &roll)))?;
    } else {
        answer::print(&as_text(&cluster.to_string(), &roll, now))?;
    }
    Ok(if roll.leader.is_some() { ExitCode::SUCCESS } else { exit::NO_SUCH_THING.into() })
}

fn failed(error: &EtcdError) -> Failure {
    match error {
        EtcdError::Unavailable(_) => Failure::new(exit::NO_SERVER, error.to_string()),
        _ => Failure::usage(error.to_string()),
    }
}

fn as_text(cluster: &str, roll: &Roll, now: SystemTime) -> String {
    let first = match &roll.leader {
        Some(leader) => {
            let synced = roll.members.iter().find(|member| member.in_sync);
            let sync = match synced {
                Some(member) => format!("{} is in sync", member.name),
                None if roll.in_sync => "a standby is in sync".to_owned(),
                None => "no standby is in sync".to_owned(),
            };
            format!("{cluster}: {} leads, term {}, {sync}\n", leader.name, leader.term)
        }
        None => match (roll.set_back.or(roll.term), roll.is_forgetful || roll.set_back.is_some()) {
            (Some(term), true) => format!(
                "{cluster}: nobody leads, for etcd was set back: start the one that knows more; if there is none, \
                 coordinator takeover --after-loss --term {term}\n"
            ),
            (None, true) => format!(
                "{cluster}: nobody leads, for etcd has lost who did: start the one that knows more; if there is none, \
                 the logs of the members say what to do\n"
            ),
            (_, false) if !roll.is_readable => format!(
                "{cluster}: whether somebody leads cannot be read: what etcd holds was written by no coordinator of this version\n"
            ),
            (_, false) => format!("{cluster}: nobody leads\n"),
        },
    };
    let mut table = Table::new(&["NAME", "ADDRESS", "ROLE", "BEHIND", "SINCE", "VERSION", "HEARD"]);
    let ago = |at: SystemTime| match at.duration_since(UNIX_EPOCH) {
        Ok(Duration::ZERO) | Err(_) => String::new(),
        Ok(_) => words::length(now.duration_since(at).unwrap_or_default()),
    };
    for member in &roll.members {
        let MemberEntry { name, address, version, since, heard, behind, .. } = member;
        let heard = ago(*heard);
        let heard = if heard.is_empty() { heard } else { format!("{heard} ago") };
        let behind = behind.map(|behind| behind.to_string()).unwrap_or_default();
        let (name, address, version) = (name.clone(), address.clone(), version.clone());
        table.row([name, address, part(member, now), behind, ago(*since), version, heard]);
    }
    if roll.members.is_empty() {
        return first;
    }
    let wrong = warnings(roll, now);
    wrong.iter().fold(format!("{first}\n{}", table.render()), |text, it| text + "\n" + it + "\n")
}

/// What is wrong with the members, for people.
fn warnings(roll: &Roll, now: SystemTime) -> Vec<String> {
    let namesakes = roll.members.iter().filter_map(|member| {
        let (name, other) = (&member.name, member.namesake.as_ref()?);
        Some(format!(
            "two members have the name {name}, one at {} and one at {other}, and one of them is shown: give each its own \
             --member-name",
            member.address
        ))
    });
    let mut warnings: Vec<String> = namesakes.collect();
    let live: Vec<_> = roll.members.iter().filter(|it| !it.is_silent(now)).collect();
    for (at, member) in live.iter().enumerate() {
        let address = &member.address;
        let is_double = |it: &&&MemberEntry| !address.is_empty() && it.address == *address;
        if live[..at].iter().any(|it| is_double(&it)) {
            continue;
        }
        let names: Vec<_> =
            live[at..].iter().filter(is_double).map(|it| it.name.as_str()).collect();
        if names.len() > 1 {
            let (names, all) = (names.join(" and "), if names.len() > 2 { "all" } else { "both" });
            warnings.push(format!(
                "{names} are {all} at {address}, as they say: clients and standbys find one of them; give each its own \
                 --advertise"
            ));
        }
    }
    warnings
}

/// What a member does, as far as etcd knows.
fn part(member: &MemberEntry, now: SystemTime) -> String {
    let part = match (member.leads, member.in_sync) {
        _ if member.knows_more => "knows more",
        (true, _) => "leader",
        (false, true) => "in sync",
        (false, false) => "standby",
    };
    if member.is_silent(now) { format!("{part}, silent") } else { part.to_owned() }
}

/// `coordinator takeover`: says that leader and standby of a term are lost for good.
pub(crate) async fn take_over(
    args: TakeoverArgs,
    settings: &Settings,
) -> Result<ExitCode, Failure> {
    let Some(cluster) = &settings.cluster else {
        let failure = Failure::usage("no cluster is named");
        return Err(failure
            .hint("coordinator takeover --cluster NAME --etcd URL,… --after-loss --term TERM"));
    };
    let TakeoverArgs { after_loss: _, term } = args;
    match Roll::declare_lost(cluster, settings.arbiter()?, term).await {
        Ok(()) => {
            answer::line(&format!(
                "{cluster}: leader and standby of term {term} are declared lost; another member leads within seconds, \
                 with a grace period. If one of the two is still there, stop it"
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(NotLost::Etcd(error)) => Err(failed(&error)),
        Err(why) => Err(Failure::new(exit::NO_SUCH_THING, why.to_string())
            .hint("coordinator members shows who leads, and in which term")),
    }
}

fn as_json(cluster: &str, roll: &Roll) -> serde_json::Value {
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let members = roll.members.iter().map(|it| {
        json!({
            "name": it.name,
            "address": it.address,
            "version": it.version,
            "leads": it.leads,
            "in_sync": it.in_sync,
            "behind": it.behind,
            "since": seconds(it.since),
            "heard": seconds(it.heard),
            "knows_more": it.knows_more,
        })
    });
    let leader = roll
        .leader
        .as_ref()
        .map(|leader| json!({"name": leader.name, "address": leader.address, "term": leader.term}));
    json!({
        "cluster": cluster,
        "leader": leader,
        "term": roll.term,
        "in_sync": roll.in_sync,
        "set_back": roll.set_back.is_some() || roll.is_forgetful,
        "warnings": warnings(roll, SystemTime::now()),
        "members": members.collect::<Vec<_>>(),
    })
}
