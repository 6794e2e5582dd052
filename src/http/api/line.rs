//! A line to the coordinator: an observer's connection, over a pipe within the process.
//!
//! What is allowed, what is shown, and how fast, is decided at its other end, as for everybody who
//! looks over the lock port.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use super::looks::{Looks, Turn};
use super::visitor::Visitor;
use crate::access::Proof;
use crate::http::problem::Problem;
use crate::server::Looker;
use crate::types::{Claim, Epoch, FencingToken, RequestId};
use crate::wire::{
    Attach, ClientCodec, ClientMessage, Happening, Hello, Query, ServerMessage, encode_frame,
};

/// How long a turn to look may take. There are 160 places for those who look (streams, lookouts, lists), so the last of
/// them waits 4 s at the pace of all: nobody who looks ends what another sees.
const TURN_TIMEOUT: Duration = Duration::from_secs(6);
/// How long an answer may take: it stands in line with those of all who look.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a Welcome may take. Whoever shows wrong credentials again and again is kept waiting.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// What an observer over HTTP is called.
const IDENTITY: &str = "http";

/// Why there is no line: others of its cluster lead, or there are too many.
fn nobody_to_ask(looker: &Looker) -> Problem {
    match looker.role().filter(|role| !role.leads) {
        Some(role) => Problem::stands_by(&role),
        None => Problem::busy(),
    }
}

/// What is looked at, by whom, in which run of the coordinator.
type Asked = (Proof, Epoch, Query);

/// All looks over HTTP.
pub(super) type AllLooks = Looks<Asked, Arc<ServerMessage>>;

/// An observer's connection.
#[derive(Debug)]
pub(super) struct Line {
    /// The pipe, and the frames that come.
    frames: FramedRead<DuplexStream, ClientCodec>,
    /// What was read, and not handed on.
    read: VecDeque<ServerMessage>,
    /// The number of the latest question.
    latest: u64,
    /// The number of the latest one that was answered.
    answered: u64,
    /// Those who look over HTTP.
    looks: Arc<AllLooks>,
    /// What was shown for it: whoever shows the same is told the same.
    proof: Proof,
    /// The token of a grant, whose locks are wanted if an event says that it is lost; and them, once one has.
    watched: Option<(FencingToken, Option<Vec<Claim>>)>,
    /// The run of the coordinator.
    pub(super) epoch: Epoch,
}

impl Line {
    /// A line for this visitor, who is welcome.
    pub(super) async fn open(
        looker: &Looker,
        visitor: &Visitor,
        looks: &Arc<AllLooks>,
    ) -> Result<Self, Problem> {
        let stream = looker
            .visit_with(visitor.caller.peer, visitor.caller.certified.clone())
            .ok_or_else(|| nobody_to_ask(looker))?;
        let frames = FramedRead::new(stream, ClientCodec::new());
        let (read, epoch) = (VecDeque::new(), Epoch::default());
        let (looks, proof) = (Arc::clone(looks), visitor.proof());
        let mut line =
            Self { frames, read, latest: 0, answered: 0, looks, proof, watched: None, epoch };
        if let Some(credential) = visitor.shown.clone() {
            line.say(ClientMessage::Authenticate { credential }).await?;
        }
        line.say(ClientMessage::Hello(Hello::new(Attach::Observer, IDENTITY))).await?;
        let welcome =
            timeout(WELCOME_TIMEOUT, line.next()).await.map_err(|_| Problem::late())??;
        match welcome {
            ServerMessage::Welcome { epoch, .. } => Ok(Self { epoch, ..line }),
            _ => Err(Problem::unavailable()),
        }
    }

    /// Says something. Whoever was said Goodbye to meanwhile is told that.
    pub(super) async fn say(&mut self, message: ClientMessage) -> Result<(), Problem> {
        let mut frame = BytesMut::new();
        encode_frame(&message, &mut frame)
            .map_err(|_| Problem::bad_request("that is longer than a question may be"))?;
        if self.frames.get_mut().write_all(&frame).await.is_ok() {
            return Ok(());
        }
        loop {
            self.next().await?;
        }
    }

    /// What comes next, however long that takes. A Goodbye is the end, and says why.
    pub(super) async fn next(&mut self) -> Result<ServerMessage, Problem> {
        loop {
            match self.read.pop_front() {
                Some(ServerMessage::Goodbye { code, rejection, message }) => {
                    return Err(Problem::dismissed(code, rejection, message));
                }
                Some(message) => return Ok(message),
                None => {}
            }
            match self.frames.next().await {
                Some(Ok(batch)) => self.read.extend(batch),
                Some(Err(_)) | None => return Err(Problem::unavailable()),
            }
        }
    }

    /// Looks at something, or is told by somebody who looks at the same, and has not begun yet.
    pub(super) async fn look(&mut self, query: Query) -> Result<ServerMessage, Problem> {
        let looks = Arc::clone(&self.looks);
        let asked = (self.proof.clone(), self.epoch, query);
        let turn = timeout(TURN_TIMEOUT, looks.turn(&asked));
        let telling = match turn.await.map_err(|_| Problem::late())? {
            Turn::Told(answer) => return Ok(Arc::unwrap_or_clone(answer)),
            Turn::Look(telling) => telling,
        };
        let (.., query) = asked;
        let answer = self.ask(|query_id| ClientMessage::Inspect { query_id, query }).await?;
        let answer = Arc::new(answer);
        telling.tell(&answer);
        Ok(Arc::unwrap_or_clone(answer))
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(
        &mut self,
        question: impl FnOnce(u64) -> ClientMessage,
    ) -> Result<ServerMessage, Problem> {
        self.exchange(question, &mut false).await?
    }

    /// Whether a question has no answer yet. What is said next is heard after that.
    pub(super) fn is_unanswered(&self) -> bool {
        self.latest != self.answered
    }

    /// Has something changed. If it was said and no answer comes, it may be done all the same, and later than that
    /// is known here.
    pub(super) async fn order(
        &mut self,
        order: impl FnOnce(u64) -> ClientMessage,
    ) -> Result<ServerMessage, Problem> {
        // Whoever was said Goodbye to before is told that: nothing is done for it any more.
        while let Some(came) = self.next().now_or_never() {
            came?;
        }
        let mut is_said = false;
        let answer = self.exchange(order, &mut is_said).await;
        answer.unwrap_or_else(|why| Err(if is_said { Problem::not_known() } else { why }))
    }

    /// From now on notes which locks are lost with the grant of this token, if events say so.
    pub(super) fn watch(&mut self, token: FencingToken) {
        self.watched = Some((token, None));
    }

    /// The locks that were lost with it, once that is told.
    pub(super) async fn lost(&mut self) -> Option<Vec<Claim>> {
        while matches!(self.watched, Some((_, None))) {
            let message = self.next().await.ok()?;
            self.hear(message);
        }
        self.watched.take()?.1
    }

    fn hear(&mut self, message: ServerMessage) {
        if let ServerMessage::Event { claims, what: Happening::Lost { token, .. }, .. } = message
            && let Some((watched, lost)) = &mut self.watched
            && *watched == token
        {
            *lost = Some(claims);
        }
    }

    /// Says something, and waits for the answer to it; an error if none comes.
    async fn exchange(
        &mut self,
        said: impl FnOnce(u64) -> ClientMessage,
        is_said: &mut bool,
    ) -> Result<Result<ServerMessage, Problem>, Problem> {
        self.latest += 1;
        let asked = self.latest;
        let answer = async {
            self.say(said(asked)).await?;
            *is_said = true;
            let answer = loop {
                match self.next().await? {
                    ServerMessage::Rejected { request, code, message, .. }
                        if request == RequestId::new(asked) =>
                    {
                        break Err(Problem::rejected(code, message));
                    }
                    message if message.query_id() == Some(asked) => break Ok(message),
                    message => self.hear(message),
                }
            };
            self.answered = asked;
            Ok(answer)
        };
        timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| Problem::late())?
    }
}
