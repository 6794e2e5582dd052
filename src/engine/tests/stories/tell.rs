//! How a story shows what happened: effects and the table, in words.

use std::fmt::Write;

use super::*;

impl Story {
    /// Writes down what is to be done about an event, as a line.
    pub(super) fn tell(&mut self, text: &mut String, effect: Effect) {
        let line = match effect {
            Effect::Tell { connection, session, request, event } => {
                let session = u64::try_from(session.number()).unwrap();
                let at = if connection.is_some() { "←" } else { "(away) ←" };
                let news = self.news(session, request.number(), event);
                format!("{session} {at} {news}")
            }
            Effect::Welcome { session, generation, ttl, standing, .. } => {
                let (session, epoch) = (session.number(), self.table.epoch());
                if let Some(teller) = self.tellers.get_mut(&u64::try_from(session).unwrap()) {
                    teller.secret = epoch;
                }
                format!("{session} ← welcome {standing:?} generation={generation} ttl={ttl}")
            }
            Effect::Record { number, forfeit } => {
                let before = self.to_record.last().or(self.recorded.last());
                assert!(before.is_none_or(|(before, _)| *before < number), "{number} twice");
                self.to_record.push((number, forfeit));
                if self.disk_works {
                    return;
                }
                let what = match forfeit {
                    Forfeit::Session(session) => format!("session {}", session.number()),
                    Forfeit::Grant(token) => format!("grant {token}"),
                    Forfeit::UpTo(token) => format!("grants up to {token}"),
                };
                format!("record {what}")
            }
            Effect::ForgetRecords { below } => {
                self.recorded.retain(|(number, _)| *number >= below);
                format!("forget records below {below}")
            }
            Effect::Refused { rejection, .. } => {
                format!("← refused {}: {rejection}", rejection.code())
            }
            Effect::Superseded { connection } => format!("connection {connection} ← superseded"),
            Effect::KeptAlive { sequence, .. } => format!("← kept alive {sequence}"),
            Effect::Ended { session, reason, held, waiting, .. } => {
                format!("{} ended: {reason:?} held={held} waiting={waiting}", session.number())
            }
            Effect::Left { session } => format!("{} left", session.number()),
            Effect::Revoked { .. } => "operator ← revoked".into(),
            Effect::NotRevoked { rejection, .. } => {
                format!("operator ← {}: {rejection}", rejection.code())
            }
            Effect::Persist(durable) => {
                self.to_persist.push(durable);
                if self.disk_works {
                    return;
                }
                format!("persist epoch={} below={}", durable.epoch, durable.tokens_below)
            }
            Effect::HoldersChanged { lock } => format!("holders of {lock} changed"),
            Effect::Happened(happened) => {
                let Happened { session, request, what, .. } = *happened;
                let what = match what {
                    RequestEvent::Queued { position, .. } => {
                        format!("Queued {{ position: {position} }}")
                    }
                    other => format!("{other:?}"),
                };
                format!("heard: {}#{request} {what}", session.number())
            }
        };
        writeln!(text, "{line}").unwrap();
    }

    fn news(&mut self, session: u64, request: u64, news: RequestEvent) -> String {
        let name = self.names.get(&(session, request)).cloned();
        let name = name.unwrap_or_else(|| format!("#{request}"));
        match news {
            RequestEvent::Granted { token } => {
                if let Some(teller) = self.tellers.get_mut(&session) {
                    teller.tokens.insert(request, token);
                    teller.granted.entry(request).or_insert(self.now);
                    teller.seals.insert(request, self.table.epoch());
                }
                format!("grant {name} token={token}")
            }
            RequestEvent::Queued { position, ticket } => {
                if let Some(teller) = self.tellers.get_mut(&session) {
                    let told_in = self.table.epoch();
                    teller.places.insert(request, Place { ticket, told_in });
                }
                format!("queued {name} position={position}")
            }
            RequestEvent::Requested => format!("requested {name}"),
            RequestEvent::Released { .. } => format!("released {name}"),
            RequestEvent::Cancelled => format!("cancelled {name}"),
            RequestEvent::Lost { token, reason } => format!("lost {name} token={token} {reason}"),
            RequestEvent::Rejected(rejection) => {
                format!("rejected {name} {}: {rejection}", rejection.code())
            }
        }
    }

    /// What the table looks like now.
    pub(super) fn status(&self) -> String {
        let mut text = String::new();
        for (_, lock) in self.table.locks(0) {
            write!(text, "{}:", lock.name()).unwrap();
            for holder in lock.holders() {
                write!(text, " held by {} ({}", holder.identity, holder.mode).unwrap();
                write!(text, ", token {})", holder.token).unwrap();
            }
            for waiter in lock.waiters() {
                write!(text, " ← {} ({})", waiter.identity, waiter.mode).unwrap();
            }
            writeln!(text).unwrap();
        }
        let Counts { sessions, locks, held, waiting, .. } = self.table.counts();
        writeln!(text, "{sessions} sessions, {locks} locks, {held} held, {waiting} waiting")
            .unwrap();
        text
    }

    /// What is counted, and the locks that somebody waits for.
    pub(super) fn tally(&self) -> String {
        let mut text = String::new();
        let Tally { waits, holds, queued, converted, reclaimed, releases, cancellations, stalls } =
            self.table.tally();
        let Counts { grants, contended, connected, tokens_left, .. } = self.table.counts();
        writeln!(text, "waits {waits:?}, holds {holds:?}").unwrap();
        write!(text, "{grants} grants, {queued} queued, {converted} converted").unwrap();
        writeln!(text, ", {reclaimed} reclaimed").unwrap();
        write!(text, "{releases} releases, {cancellations} cancellations, {stalls} stalls")
            .unwrap();
        writeln!(text, "; {connected} connected, {tokens_left} tokens left").unwrap();
        let views = self.table.contended_places(0).filter_map(|(_, view)| view);
        let names: Vec<String> =
            views.map(|view| format!("{} ({})", view.name(), view.waiter_count())).collect();
        assert_eq!(names.len(), contended);
        writeln!(text, "waited for: {}", names.join(" ")).unwrap();
        text
    }

    /// Of a request for several locks, all of them.
    fn parts(&self, session: SessionId, request: RequestId) -> String {
        let claims = self.table.claims(session, request);
        let parts: Vec<_> = claims.map(|(name, mode)| format!(" {name} {mode}")).collect();
        if parts.len() > 1 { format!(", one of{}", parts.join(",")) } else { String::new() }
    }

    /// All that is shown to whoever looks at the table.
    pub(super) fn look(&self) -> String {
        let mut text = String::new();
        let ago = |then: Timestamp| self.now.since(then);
        for (place, lock) in self.table.locks(0) {
            let (name, holders, waiters) = (lock.name(), lock.holder_count(), lock.waiter_count());
            write!(text, "lock {place} {name}: {holders} holders, {waiters} waiters").unwrap();
            let left = lock.delayed_until().map(|until| until.since(self.now));
            writeln!(text, "{}", left.map_or(String::new(), |left| format!(", delayed {left:?}")))
                .unwrap();
            let Outlook { lost, kept, free_by } = lock.outlook();
            if let Some(Pause { identity, token, since, length, .. }) = lost {
                let after = ago(*since);
                writeln!(
                    text,
                    "  {length:?} after {identity} was lost, token={token}, {after:?} ago"
                )
                .unwrap();
            }
            if let Some(Pause { identity, token, since, length, .. }) = kept {
                let after = ago(*since);
                writeln!(
                    text,
                    "  kept {length:?} from the grant of {identity} on, token={token}, {after:?} ago"
                )
                .unwrap();
            }
            if let Some(free_by) = free_by.filter(|_| holders > 0) {
                writeln!(text, "  free in {:?}", free_by.since(self.now)).unwrap();
            }
            for holder in lock.holders() {
                let HolderView { session, identity, request, owner, mode, token, .. } = holder;
                let away = if holder.connected { "" } else { " (away)" };
                let (held, note, parts) =
                    (ago(holder.since), holder.note, self.parts(session, request));
                write!(text, "  {identity}#{request}{away} owner={owner} holds {mode}").unwrap();
                writeln!(text, " token={token} for {held:?} note={:?}{parts}", said(note)).unwrap();
            }
            for waiter in lock.waiters() {
                let WaiterView { session, identity, request, owner, mode, .. } = waiter;
                let away = if waiter.connected { "" } else { " (away)" };
                let (waits, note, parts) =
                    (ago(waiter.since), waiter.note, self.parts(session, request));
                write!(text, "  {identity}#{request}{away} owner={owner} waits {mode}").unwrap();
                writeln!(text, " for {waits:?} note={:?}{parts}", said(note)).unwrap();
            }
        }
        for (place, session) in self.table.sessions(0) {
            let SessionView { identity, connected, since, ttl, lease_ends, .. } = session;
            let away = if connected { "" } else { " (away)" };
            write!(text, "session {place} {identity}{away}: for {:?}", ago(since)).unwrap();
            let left = lease_ends.map(|ends| ends.since(self.now)).unwrap_or_default();
            write!(text, " ttl={ttl} ends in {left:?}").unwrap();
            writeln!(text, " held={} waiting={}", session.held, session.waiting).unwrap();
        }
        let Counts { grants, expired, last_token, .. } = self.table.counts();
        write!(text, "{grants} grants, the last token={last_token}, {expired} expired").unwrap();
        if let Some(left) = self.table.grace_left() {
            write!(text, ", in grace for {left:?}").unwrap();
        }
        let next = self.table.next_deadline().map(|at| at.since(self.now));
        writeln!(text, "{}", next.map_or(String::new(), |next| format!(", next look in {next:?}")))
            .unwrap();
        text
    }
}

/// A purpose, in its words; none is no words.
fn said(note: Option<&Note>) -> &str {
    note.map_or("", Note::as_str)
}
