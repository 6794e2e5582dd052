//! The members of a cluster, as clients meet them: one of them leads, the others say who does, and one that
//! was deposed may not know it yet.
//!
//! The coordinator moves from one to the other when it is started. What the others say is true, late or
//! false, so that hints lead in circles. A deposed leader welcomes those who have seen a later one, and grants them
//! whatever they ask for: only its epoch gives it away (rule C5). To all others it does not lead, as in truth
//! it would not, for what it says has to be acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::stream::Stream;
use crate::testing::fuzz::Random;
use crate::types::{
    Epoch, FencingToken, GoodbyeCode, RejectionCode, Seal, ServerAddress, Standing,
};
use crate::wire::{self, Attach, ClientMessage, PROTOCOL, ServerMessage, decode, encode_frame};

/// What a member says to a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    /// That this one leads; none: that it knows nobody who does.
    Leader(Option<usize>),
    /// That it is welcome, in an epoch that is over, if it has seen a later one; else that this one leads.
    Welcome(Epoch, Option<usize>),
}

/// A client at a member that does not lead.
pub(super) struct Visit {
    /// The member's end of the connection.
    pub(super) stream: Stream,
    /// What it hears.
    pub(super) says: Says,
    /// Counts false welcomes.
    false_welcomes: Arc<AtomicU64>,
}

/// Who of them leads, and what the others think.
pub(super) struct Members {
    /// How many there are.
    count: usize,
    /// Where the coordinator runs, or ran last.
    home: usize,
    /// Whether it runs.
    leads: bool,
    /// The epoch of the run.
    epoch: Epoch,
    /// One that was deposed, its epoch, and until when it does not know.
    deposed: Option<(usize, Epoch, Instant)>,
    /// Where the others' clients go.
    visits: UnboundedSender<Visit>,
    /// Hints that were given.
    pub(super) hints: u64,
    /// Welcomes of one that was deposed.
    pub(super) false_welcomes: Arc<AtomicU64>,
}

impl Members {
    /// So many, and who visits those that do not lead.
    pub(super) fn new(count: usize) -> (Self, UnboundedReceiver<Visit>) {
        let (visits, visitors) = unbounded_channel();
        let (epoch, deposed) = (Epoch::default(), None);
        let members = Self {
            count,
            home: 0,
            leads: false,
            epoch,
            deposed,
            visits,
            hints: 0,
            false_welcomes: Arc::default(),
        };
        (members, visitors)
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn home(&self) -> usize {
        self.home
    }

    /// The coordinator accepts connections from now on.
    pub(super) fn leads(&mut self) {
        self.leads = true;
    }

    /// It runs in this epoch.
    pub(super) fn runs(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// It does so no more.
    pub(super) fn leads_no_more(&mut self) {
        self.leads = false;
    }

    /// It is started elsewhere the next time; where it was, nobody may know that, until then.
    pub(super) fn moves(&mut self, random: &mut Random, unaware_until: Option<Instant>) {
        if self.count > 1 {
            self.deposed = unaware_until.map(|until| (self.home, self.epoch, until));
            self.home = (self.home + 1 + random.below(self.count - 1)) % self.count;
        }
    }

    /// Nothing is wrong any more.
    pub(super) fn heal(&mut self) {
        self.deposed = None;
    }

    /// What a `member` says that does not lead. None: it leads, or would if it ran.
    pub(super) fn says(&mut self, member: usize, random: &mut Random) -> Option<Says> {
        let deposed =
            self.deposed.filter(|(at, _, until)| *at == member && Instant::now() < *until);
        if member == self.home {
            return None;
        }
        let known = match random.below(8) {
            0 => None,
            1 => Some(random.below(self.count)),
            _ => self.leads.then_some(self.home),
        };
        self.hints += u64::from(known.is_some());
        Some(match deposed {
            Some((_, epoch, _)) => Says::Welcome(epoch, known),
            None => Says::Leader(known),
        })
    }

    /// A client goes to a member that says this.
    pub(super) fn visit(&self, stream: Stream, says: Says) {
        let false_welcomes = Arc::clone(&self.false_welcomes);
        let _over = self.visits.send(Visit { stream, says, false_welcomes });
    }
}

/// Where clients find a member.
fn address(member: usize) -> String {
    format!("member{member}:5625")
}

/// Which member that is.
pub(super) fn member_at(address: &ServerAddress) -> Option<usize> {
    address.host().strip_prefix("member")?.parse().ok()
}

/// Receives visitors until the end.
pub(super) async fn receive(mut visitors: UnboundedReceiver<Visit>) {
    while let Some(visit) = visitors.recv().await {
        spawn_local(async move {
            let _broken = entertain(visit).await;
        });
    }
}

async fn entertain(visit: Visit) -> std::io::Result<()> {
    let Visit { mut stream, says, false_welcomes } = visit;
    let mut token = 0;
    loop {
        let length = stream.read_u32_le().await?;
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await?;
        let Ok(heard) = decode::<ClientMessage>(&frame) else { return Ok(()) };
        let not_leader = |leader: Option<usize>| ServerMessage::Goodbye {
            code: GoodbyeCode::NotLeader,
            rejection: RejectionCode::NONE,
            message: leader.map(address).unwrap_or_default(),
        };
        let answer = match says {
            Says::Leader(leader) => Some(not_leader(leader)),
            Says::Welcome(epoch, leader) => match lie(&heard, epoch, &mut token) {
                None if matches!(heard, ClientMessage::Hello(_)) => Some(not_leader(leader)),
                answer => answer,
            },
        };
        if matches!(answer, Some(ServerMessage::Welcome { .. })) {
            false_welcomes.fetch_add(1, Ordering::Relaxed);
        }
        let mut bytes = BytesMut::new();
        if let Some(answer) = &answer
            && encode_frame(answer, &mut bytes).is_ok()
        {
            stream.write_all(&bytes).await?;
        }
        if matches!(answer, Some(ServerMessage::Goodbye { .. })) {
            return stream.shutdown().await;
        }
    }
}

/// What a leader says that was deposed, to who has seen a later one: yes to everything.
fn lie(heard: &ClientMessage, epoch: Epoch, token: &mut u64) -> Option<ServerMessage> {
    let mut grant = |request, token_before: Option<FencingToken>| {
        *token += 1;
        let token = token_before.unwrap_or(FencingToken::new(*token));
        Some(ServerMessage::Grant { request, token, seal: Seal::new(0) })
    };
    match heard {
        ClientMessage::Hello(wire::Hello { attach, epoch_seen, ttl_ms, .. })
            if *epoch_seen > epoch =>
        {
            let (session, secret, generation, standing) = match *attach {
                Attach::Resume { session, secret, generation } => {
                    (session, secret, generation, Standing::Resumed)
                }
                Attach::New | Attach::Observer => return None,
            };
            let ttl_ms = (*ttl_ms).max(2_000);
            let (protocol, server) = (PROTOCOL, "deposed".to_owned());
            Some(ServerMessage::Welcome {
                protocol,
                server,
                epoch,
                session,
                secret,
                generation,
                ttl_ms,
                standing,
            })
        }
        ClientMessage::Request(wire::Request { request, .. }) => grant(*request, None),
        ClientMessage::Reclaim(wire::Reclaim { request, token, .. }) => {
            grant(*request, Some(*token))
        }
        ClientMessage::KeepAlive { sequence } => {
            Some(ServerMessage::KeptAlive { sequence: *sequence })
        }
        ClientMessage::Release { request, .. } => {
            Some(ServerMessage::Released { request: *request })
        }
        ClientMessage::Cancel { request } => Some(ServerMessage::Cancelled { request: *request }),
        _ => None,
    }
}
