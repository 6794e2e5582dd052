//! ZooKeeper, with its lock recipe: create an ephemeral sequential node, list the nodes; the lowest
//! holds, any other watches the one before it.
//!
//! Of the protocol there is as much as the recipe needs: big-endian frames of a length, a header
//! and fields.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval;

use crate::load::{Answer, Ask, Error, Link, Peer, Plan};

/// The session's timeout in milliseconds.
const TIMEOUT_MS: i32 = 30_000;
/// How often it is renewed while nothing else is said.
const PING: Duration = Duration::from_secs(5);
/// What a read may bring.
const READ_BYTES: usize = 16 * 1024;

/// Numbers of operations.
mod operation {
    pub(super) const CREATE: i32 = 1;
    pub(super) const DELETE: i32 = 2;
    pub(super) const EXISTS: i32 = 3;
    pub(super) const CHILDREN: i32 = 8;
    pub(super) const PING: i32 = 11;
    pub(super) const CLOSE: i32 = -11;
}

/// Numbers of frames that nobody asked for, or asked for without a number of its own.
const XID_EVENT: i32 = -1;
const XID_PING: i32 = -2;

/// What an answer says about a node.
const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;

/// How a node is created.
const PERSISTENT: i32 = 0;
const EPHEMERAL_SEQUENTIAL: i32 = 3;
/// Everybody may do everything.
const ALL_PERMISSIONS: i32 = 31;

/// A ZooKeeper server.
#[derive(Clone, Debug)]
pub(crate) struct ZooKeeper {
    /// Where it is.
    pub(crate) address: String,
    /// What is measured.
    pub(crate) plan: Plan,
}

/// A connection to a ZooKeeper server.
#[derive(Debug)]
pub(crate) struct ZooKeeperLink {
    /// The bytes.
    stream: TcpStream,
    /// What will be written next.
    unsent: BytesMut,
    /// What was read and not yet understood.
    unread: BytesMut,
    /// Whether there is a session.
    is_greeted: bool,
    /// The number of the latest question.
    xid: i32,
    /// The nodes below which the locks' nodes are.
    parents: Vec<String>,
    /// The nodes by which the locks are held.
    nodes: Vec<String>,
    /// Something that was watched has changed.
    was_woken: bool,
}

/// An answer.
#[derive(Debug)]
struct Reply {
    /// The number of the question.
    xid: i32,
    /// 0, or what is wrong.
    error: i32,
    /// The rest.
    body: BytesMut,
}

impl Peer for ZooKeeper {
    type Link = ZooKeeperLink;

    async fn connect(&self, number: usize) -> Result<ZooKeeperLink, Error> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let slots = self.plan.slots();
        let parent = |slot| format!("/{}", self.plan.lock_name(self.plan.lock(number, slot)));
        Ok(ZooKeeperLink {
            stream,
            unsent: BytesMut::new(),
            unread: BytesMut::new(),
            is_greeted: false,
            xid: 0,
            parents: (0..slots).map(parent).collect(),
            nodes: vec![String::new(); slots],
            was_woken: false,
        })
    }
}

impl ZooKeeperLink {
    /// Appends a question.
    fn put(&mut self, kind: i32, body: impl FnOnce(&mut BytesMut)) {
        self.xid += 1;
        put_frame(self.xid, kind, body, &mut self.unsent);
    }

    fn put_create(&mut self, path: &str, flags: i32) {
        self.put(operation::CREATE, |frame| {
            put_text(path, frame);
            put_text("", frame);
            frame.put_i32(1);
            frame.put_i32(ALL_PERMISSIONS);
            put_text("world", frame);
            put_text("anyone", frame);
            frame.put_i32(flags);
        });
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// The next frame.
    async fn frame(&mut self) -> Result<BytesMut, Error> {
        loop {
            if let Some(len) = self.unread.first_chunk() {
                let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| short())?;
                if self.unread.len() >= 4 + len {
                    self.unread.advance(4);
                    return Ok(self.unread.split_to(len));
                }
            }
            self.unread.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The next answer or event.
    async fn any(&mut self) -> Result<Reply, Error> {
        let mut body = self.frame().await?;
        let xid = body.try_get_i32().map_err(|_| short())?;
        body.try_get_i64().map_err(|_| short())?;
        let error = body.try_get_i32().map_err(|_| short())?;
        self.was_woken |= xid == XID_EVENT;
        Ok(Reply { xid, error, body })
    }

    /// The next answer to a question; answers come in the order of the questions.
    async fn reply(&mut self) -> Result<Reply, Error> {
        loop {
            let reply = self.any().await?;
            if reply.xid != XID_EVENT && reply.xid != XID_PING {
                return Ok(reply);
            }
        }
    }

    /// The next answer, which must be good; or have this error.
    async fn good(&mut self, but: Option<i32>) -> Result<Reply, Error> {
        let reply = self.reply().await?;
        if reply.error == 0 || Some(reply.error) == but {
            return Ok(reply);
        }
        Err(Error::Protocol(format!("ZooKeeper answered error {}", reply.error)))
    }

    async fn open_session(&mut self) -> Result<(), Error> {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        frame.put_i64(0);
        frame.put_i32(TIMEOUT_MS);
        frame.put_i64(0);
        frame.put_i32(16);
        frame.put_bytes(0, 16);
        frame.put_u8(0);
        self.unsent.put_i32(i32::try_from(frame.len()).unwrap_or(i32::MAX));
        self.unsent.extend_from_slice(&frame);
        self.flush().await?;
        self.frame().await?;
        self.is_greeted = true;
        Ok(())
    }

    /// The nodes below a slot's parent.
    async fn children(&mut self) -> Result<Vec<String>, Error> {
        let mut body = self.good(None).await?.body;
        let count = body.try_get_i32().map_err(|_| short())?;
        (0..count).map(|_| take_text(&mut body)).collect()
    }

    /// Waits until a slot's node is the lowest, given what is there now.
    async fn wait_in_line(&mut self, slot: usize, mut children: Vec<String>) -> Result<(), Error> {
        loop {
            let parent = self.parents[slot].clone();
            let own = self.nodes[slot].rsplit('/').next().unwrap_or_default().to_owned();
            let Some(before) = children.iter().filter(|it| **it < own).max() else { return Ok(()) };
            self.was_woken = false;
            let path = format!("{parent}/{before}");
            self.put(operation::EXISTS, |frame| {
                put_text(&path, frame);
                frame.put_u8(1);
            });
            self.flush().await?;
            let is_there = self.good(Some(NO_NODE)).await?.error == 0;
            while is_there && !self.was_woken {
                self.any().await?;
            }
            self.put_children(slot);
            self.flush().await?;
            children = self.children().await?;
        }
    }

    fn put_children(&mut self, slot: usize) {
        let path = self.parents[slot].clone();
        self.put(operation::CHILDREN, |frame| {
            put_text(&path, frame);
            frame.put_u8(0);
        });
    }
}

impl Link for ZooKeeperLink {
    async fn greet(&mut self) -> Result<(), Error> {
        self.open_session().await?;
        for parent in self.parents.clone() {
            self.put_create(&parent, PERSISTENT);
        }
        self.flush().await?;
        for _ in 0..self.parents.len() {
            self.good(Some(NODE_EXISTS)).await?;
        }
        Ok(())
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.is_greeted {
            self.open_session().await?;
        }
        let releases = ask != Ask::Acquire;
        let acquires = matches!(ask, Ask::Acquire | Ask::Exchange);
        for slot in 0..self.parents.len() {
            if releases {
                let path = self.nodes[slot].clone();
                self.put(operation::DELETE, |frame| {
                    put_text(&path, frame);
                    frame.put_i32(-1);
                });
            }
            if acquires {
                let path = format!("{}/lock-", self.parents[slot]);
                self.put_create(&path, EPHEMERAL_SEQUENTIAL);
            }
        }
        if ask == Ask::ReleaseAndLeave {
            self.put(operation::CLOSE, |_| ());
        }
        self.flush().await?;
        for slot in 0..self.parents.len() {
            if releases {
                self.good(None).await?;
                hear(Answer::Released)?;
            }
            if acquires {
                let mut body = self.good(None).await?.body;
                self.nodes[slot] = take_text(&mut body)?;
                self.put_children(slot);
            }
        }
        if acquires {
            self.flush().await?;
            let mut all = Vec::new();
            for _ in 0..self.parents.len() {
                all.push(self.children().await?);
            }
            for (slot, children) in all.into_iter().enumerate() {
                self.wait_in_line(slot, children).await?;
                hear(Answer::Granted { slot, token: None })?;
            }
        }
        if ask == Ask::ReleaseAndLeave {
            self.good(None).await?;
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Error> {
        let mut ticks = interval(PING);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let mut frame = BytesMut::new();
            put_frame(XID_PING, operation::PING, |_| (), &mut frame);
            self.stream.write_all(&frame).await?;
        }
    }

    async fn leave(mut self) -> Result<(), Error> {
        self.put(operation::CLOSE, |_| ());
        self.flush().await?;
        self.good(None).await?;
        Ok(())
    }
}

fn put_frame(xid: i32, kind: i32, body: impl FnOnce(&mut BytesMut), buffer: &mut BytesMut) {
    let start = buffer.len();
    for number in [0, xid, kind] {
        buffer.put_i32(number);
    }
    body(buffer);
    let len = i32::try_from(buffer.len() - start - 4).unwrap_or(i32::MAX);
    buffer[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn put_text(text: &str, buffer: &mut BytesMut) {
    buffer.put_i32(i32::try_from(text.len()).unwrap_or(i32::MAX));
    buffer.extend_from_slice(text.as_bytes());
}

fn take_text(body: &mut BytesMut) -> Result<String, Error> {
    let len = body.try_get_i32().ok().and_then(|len| usize::try_from(len).ok());
    match len {
        Some(len) if body.len() >= len => {
            Ok(String::from_utf8_lossy(&body.split_to(len)).into_owned())
        }
        Some(_) | None => Err(short()),
    }
}

fn short() -> Error {
    Error::Protocol("ZooKeeper's answer is too short".to_owned())
}
