//! The lines of a story beside its sessions' requests: old connections, operators, onlookers,
//! limits.

use super::*;

impl Story {
    pub(super) fn old(&mut self, line: &Line) -> Result<String, Failure> {
        let mut args = line.consume_args();
        let session: u64 = args.next_pos().ok_or("which session?")?.parse()?;
        let connection = self.teller(session)?.old_connection;
        match args.next_pos() {
            Some("keepalive") => {
                let command = Command::KeepAlive { sequence: 1 };
                Ok(self.handle(&Event::Command { connection, command }))
            }
            Some("goodbye") => {
                Ok(self.handle(&Event::Command { connection, command: Command::Goodbye }))
            }
            Some("cut") => Ok(self.handle(&Event::Disconnect { connection })),
            _ => Err("keepalive, goodbye or cut".into()),
        }
    }

    pub(super) fn revoke(&mut self, line: &Line) -> Result<String, Failure> {
        let mut args = line.consume_args();
        let name = LockName::new(args.next_pos().ok_or("which lock?")?)?;
        let token = FencingToken::new(args.take_key("token").ok_or("which token?")?.parse()?);
        self.queries += 1;
        let connection = ConnectionId::new(999);
        Ok(self.handle(&Event::Revoke { connection, query_id: self.queries, name, token }))
    }

    /// Somebody begins or ceases to look on.
    pub(super) fn look_on(&mut self, what: &str, at: &str) -> Result<String, Failure> {
        match what {
            "watch" => self.table.watch(LockName::new(at)?),
            "unwatch" => self.table.unwatch(&LockName::new(at)?),
            "hush" => self.table.hush(SessionId::new(at.parse()?)),
            "unhush" => {
                let untold = self.table.unhush(SessionId::new(at.parse()?));
                return Ok(format!("{untold} untold\n"));
            }
            "untold" => return Ok(format!("{} untold\n", self.table.take_untold_of_ended())),
            _ => self.table.listen(match at {
                "on" => Listening::Everything,
                "tenures" => Listening::Tenures,
                _ => Listening::Nothing,
            }),
        }
        Ok(String::new())
    }

    /// The operator allows leases as long as that from the next run on.
    pub(super) fn allow(&mut self, line: &Line) -> Result<String, Failure> {
        let mut args = line.consume_args();
        let ttl = args.take_key("ttl").ok_or("what ttl?")?;
        self.limits.ttl_max = Ttl::new(duration(ttl)?)?;
        args.reject_next()?;
        Ok(String::new())
    }

    pub(super) fn limit(&mut self, line: &Line) -> Result<String, Failure> {
        let mut args = line.consume_args();
        let mut limits = limits();
        while let Some((key, value)) = args.next_key() {
            let value = value.parse()?;
            match key {
                "sessions" => limits.sessions_max = value,
                "claims" => limits.claims_per_session_max = value,
                "waiters" => limits.waiters_per_lock_max = value,
                "kept" => limits.kept_locks_max = value,
                "finished" => limits.finished_remembered = value,
                other => return Err(format!("no limit {other}").into()),
            }
        }
        *self = Self::with(limits, TOKEN_BLOCK);
        Ok(String::new())
    }
}
