//! How a story shows what happened: effects and the table, in words.

use std::fmt::Write;

use super::*;

impl Story {
    /// Writes down what is to be done about an event, as a line.
    pub(super) fn tell(&mut self, text: &mut String, effect: Effect) {
        let line = match effect {
            Effect::Tell { connection, session, request, news } => {
                let session = u64::try_from(session.number()).unwrap();
                let at = if connection.is_some() { "←" } else { "(away) ←" };
                let news = self.news(session, request.number(), news);
                format!("{session} {at} {news}")
            }
            Effect::Welcome { session, generation, ttl, standing, .. } => {
                let session = session.number();
                format!("{session} ← welcome {standing:?} generation={generation} ttl={ttl}")
            }
            Effect::Record { number, forfeit } => {
                self.to_record.push((number, forfeit));
                if self.disk_works {
                    return;
                }
                let what = match forfeit {
                    Forfeit::Session(session) => format!("session {}", session.number()),
                    Forfeit::Grant(token) => format!("grant {token}"),
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
            Effect::Happened { session, request, what, .. } => {
                format!("heard: {}#{request} {what:?}", session.number())
            }
        };
        writeln!(text, "{line}").unwrap();
    }

    fn news(&mut self, session: u64, request: u64, news: News) -> String {
        let name = self.names.get(&(session, request)).cloned();
        let name = name.unwrap_or_else(|| format!("#{request}"));
        match news {
            News::Granted { token } => {
                if let Some(teller) = self.tellers.get_mut(&session) {
                    teller.tokens.insert(request, token);
                }
                format!("grant {name} token={token}")
            }
            News::Queued { position, ticket } => {
                if let Some(teller) = self.tellers.get_mut(&session) {
                    teller.tickets.insert(request, ticket);
                }
                format!("queued {name} position={position}")
            }
            News::Released => format!("released {name}"),
            News::Cancelled => format!("cancelled {name}"),
            News::Lost { token, reason } => format!("lost {name} token={token} {reason}"),
            News::Rejected(rejection) => {
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
}
