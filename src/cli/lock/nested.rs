//! A lock asked for under itself: a script under a lock calls a tool that takes the same lock.
//!
//! The two are sessions of their own. The inner one would wait for the outer one, which waits for
//! it, and the coordinator cannot know. But a command knows its locks (`above`). A `coordinator lock`
//! below adds its own. Such a line is believed only if the coordinator confirms it, because a
//! daemon that was started under a lock may have outlived it.

use std::env;

use coordinator::types::FencingToken;
use coordinator::wire::{Holder, LockStatus, Mode};

use super::above;
use super::above::Held;
use crate::cli::arguments::Wanted;
use crate::cli::keeper::places::held_here;
use crate::cli::settings::Settings;
use crate::cli::show::ping::connect;
use crate::cli::text::errors::{Attempt, Failure, shell_word};
use crate::cli::text::visible::quoted;

/// What we run under, as our environment says, and what was acquired for the job of which we are a
/// step.
pub(crate) fn held_above() -> Vec<Held> {
    let mut held = above::read(&env::var(above::VARIABLE).unwrap_or_default());
    for it in held_here() {
        if !held.contains(&it) {
            held.push(it);
        }
    }
    held
}

/// The variable for a command that runs under `names` besides what we run under.
pub(crate) fn variable(token: FencingToken, session: &str, names: &[&str]) -> String {
    above::with(&held_above(), token, session, names)
}

/// What to do about a lock that is held above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// To wait for it would be for ever.
    Refused,
    /// Go on under the grant that is there.
    Reentrant,
}

/// The grant under which the command is to run without asking for another; none: it is to ask.
///
/// # Errors
///
/// If it would wait for what it runs under, or if `--reentrant` wants more than that is.
pub(crate) async fn grant_above(
    wanted: &Wanted,
    nesting: Nesting,
    settings: &Settings,
) -> Result<Option<Held>, Failure> {
    let mut above = held_above();
    above.retain(|held| wanted.names().contains(&held.name.as_str()));
    if above.is_empty() {
        return Ok(None);
    }
    let attempt = Attempt { server: &settings.server.0, lock: &wanted.name, ..Attempt::default() };
    let observer = connect(settings).await?;
    let mut alive = Vec::new();
    for held in above {
        let seen = observer.lock(&held.name).await.map_err(|error| attempt.failed(&error))?;
        if let Some(mode) = seen.and_then(|lock| mode_of(&lock, held.token)) {
            alive.push((held, mode));
        }
    }
    judge(wanted, nesting, &alive)
}

/// How the grant with this token is held, if it still is.
pub(crate) fn mode_of(lock: &LockStatus, token: FencingToken) -> Option<Mode> {
    let is_it = |holder: &&Holder| holder.token == token;
    lock.holders.iter().find(is_it).map(|holder| holder.mode)
}

fn judge(args: &Wanted, nesting: Nesting, alive: &[(Held, Mode)]) -> Result<Option<Held>, Failure> {
    let wanted = match args.permits {
        Some(of) => Mode::Permits { take: args.take, of },
        None if args.shared => Mode::Shared,
        None => Mode::Exclusive,
    };
    if nesting == Nesting::Refused {
        return match alive.iter().find(|(_, mode)| !go_together(*mode, wanted)) {
            Some((held, _)) => Err(itself(held)),
            None => Ok(None),
        };
    }
    let Some((first, _)) = alive.first() else { return Ok(None) };
    for name in args.names() {
        let covers = |(held, mode): &&(Held, Mode)| held.name == name && covers(*mode, wanted);
        if alive.iter().find(covers).is_none() {
            let held = format!("{} with token {}", quoted(&first.name), first.token);
            let name = quoted(name);
            return Err(Failure::usage(format!(
                "--reentrant needs all locks to be held by an outer command: {held} is, {name} in \
                this mode is not"
            ))
            .hint(
                "let the outer command take all of them (--and), in the mode that the inner one \
                needs",
            ));
        }
    }
    let own = alive.iter().find(|(held, _)| held.name == args.name);
    Ok(own.map(|(held, _)| held.clone()))
}

fn itself(held: &Held) -> Failure {
    let Held { token, name, .. } = held;
    let (shown, word) = (quoted(name), shell_word(name));
    let go_on = format!("`coordinator lock --reentrant {word} -- …`");
    if held_here().contains(held) {
        let what = format!("{shown} is already acquired here (token {token})");
        return Failure::usage(what).hint(format!(
            "`coordinator release` releases it; to run a command under it: {go_on}"
        ));
    }
    let what = format!(
        "{shown} is held by the command that runs this (token {token}), which would deadlock with \
        itself"
    );
    Failure::usage(what)
        .hint(format!("drop one of the two locks, or run this under the existing grant: {go_on}"))
}

/// Whether a lock can be held in both modes at once.
fn go_together(held: Mode, wanted: Mode) -> bool {
    match (held, wanted) {
        (Mode::Shared, Mode::Shared) => true,
        (Mode::Permits { take: held, of }, Mode::Permits { take, .. }) => {
            held.saturating_add(take) <= of
        }
        _ => false,
    }
}

/// Whether who holds a lock in one mode may do what the other allows.
fn covers(held: Mode, wanted: Mode) -> bool {
    match (held, wanted) {
        (Mode::Exclusive, _) | (Mode::Shared, Mode::Shared) => true,
        (Mode::Permits { take: held, of }, Mode::Permits { take, of: wanted }) => {
            of == wanted && take <= held
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_go_together_and_permits_as_far_as_they_reach() {
        let permits = |take| Mode::Permits { take, of: 3 };
        assert!(go_together(Mode::Shared, Mode::Shared));
        assert!(!go_together(Mode::Shared, Mode::Exclusive));
        assert!(!go_together(Mode::Exclusive, Mode::Shared));
        assert!(go_together(permits(1), permits(2)));
        assert!(!go_together(permits(2), permits(2)));
    }

    #[test]
    fn who_holds_alone_may_do_what_readers_may() {
        assert!(covers(Mode::Exclusive, Mode::Shared));
        assert!(!covers(Mode::Shared, Mode::Exclusive));
        let permits = |take, of| Mode::Permits { take, of };
        assert!(covers(permits(2, 3), permits(1, 3)));
        assert!(!covers(permits(1, 3), permits(2, 3)));
        assert!(!covers(permits(2, 3), permits(1, 4)));
    }
}
