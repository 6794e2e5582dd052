//! Redis, with the usual recipe: `SET name value NX PX ttl`, and a script that deletes the key only
//! if it still has our value.
//!
//! There is no queue, so only locks that nobody else wants are asked for.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{Answer, Ask, Error, Link, Peer, Plan};

/// How long a lock outlives the last sign of life, in milliseconds.
pub(crate) const TTL_MS: &str = "40000";
/// Deletes the key if it has the value.
pub(crate) const RELEASE: &str = "if redis.call('get',KEYS[1]) == ARGV[1] then \
    return redis.call('del',KEYS[1]) else return 0 end";
/// What a read may bring.
const READ_BYTES: usize = 16 * 1024;

/// A Redis server.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    /// Where it is.
    address: String,
    /// What is measured.
    plan: Plan,
    /// By what name the server knows the script.
    script: String,
}

impl Redis {
    /// The server at `address`, with the script in it.
    pub(crate) async fn new(address: String, plan: Plan) -> Result<Self, Error> {
        let mut peer = Self { address, plan, script: String::new() };
        let mut link = peer.connect(0).await?;
        put(&["SCRIPT", "LOAD", RELEASE], &mut link.unsent);
        link.flush().await?;
        let Reply::Text(script) = link.reply().await? else { return Err(wrong("SCRIPT LOAD")) };
        peer.script = script;
        Ok(peer)
    }
}

/// A connection to a Redis server.
#[derive(Debug)]
pub(crate) struct RedisLink {
    /// The bytes.
    stream: TcpStream,
    /// What will be written next.
    unsent: BytesMut,
    /// What was read and not yet understood.
    unread: BytesMut,
    /// The names of the locks.
    names: Vec<String>,
    /// By what name the server knows the script.
    script: String,
    /// Which connection it is: a part of every value.
    number: usize,
    /// How often it has asked: the other part.
    asked: u64,
    /// The values with which the locks are held.
    values: Vec<String>,
}

/// What Redis answers.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    /// `+OK`
    Ok,
    /// `$-1`
    Nothing,
    /// `:1`
    Number(i64),
    /// `$3` and so many bytes.
    Text(String),
}

impl Peer for Redis {
    type Link = RedisLink;

    async fn connect(&self, number: usize) -> Result<RedisLink, Error> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let slots = self.plan.slots();
        let name = |slot| self.plan.lock_name(self.plan.lock(number, slot));
        Ok(RedisLink {
            stream,
            unsent: BytesMut::new(),
            unread: BytesMut::new(),
            names: (0..slots).map(name).collect(),
            script: self.script.clone(),
            number,
            asked: 0,
            values: vec![String::new(); slots],
        })
    }
}

impl RedisLink {
    async fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    async fn reply(&mut self) -> Result<Reply, Error> {
        loop {
            if let Some(reply) = take(&mut self.unread)? {
                return Ok(reply);
            }
            self.unread.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    fn put_acquire(&mut self, slot: usize) {
        self.asked += 1;
        self.values[slot] = format!("{:08}-{:012}", self.number, self.asked);
        let (name, value) = (&self.names[slot], &self.values[slot]);
        put(&["SET", name, value, "NX", "PX", TTL_MS], &mut self.unsent);
    }

    fn put_release(&mut self, slot: usize) {
        let (name, value) = (&self.names[slot], &self.values[slot]);
        put(&["EVALSHA", &self.script, "1", name, value], &mut self.unsent);
    }
}

impl Link for RedisLink {
    async fn greet(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let releases = ask != Ask::Acquire;
        let acquires = matches!(ask, Ask::Acquire | Ask::Exchange);
        for slot in 0..self.names.len() {
            if releases {
                self.put_release(slot);
            }
            if acquires {
                self.put_acquire(slot);
            }
        }
        self.flush().await?;
        for slot in 0..self.names.len() {
            if releases {
                match self.reply().await? {
                    Reply::Number(1) => hear(Answer::Released)?,
                    _ => return Err(wrong("the release")),
                }
            }
            if acquires {
                match self.reply().await? {
                    Reply::Ok => hear(Answer::Granted { slot, token: None })?,
                    _ => return Err(wrong("a lock of our own is not free")),
                }
            }
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Error> {
        std::future::pending().await
    }

    async fn leave(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Appends a command.
fn put(words: &[&str], buffer: &mut BytesMut) {
    buffer.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        buffer.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        buffer.extend_from_slice(word.as_bytes());
        buffer.extend_from_slice(b"\r\n");
    }
}

/// Takes a reply from the front of `buffer`, if a whole one is there.
fn take(buffer: &mut BytesMut) -> Result<Option<Reply>, Error> {
    let Some(end) = buffer.windows(2).position(|it| it == b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| wrong("an empty line"))?;
    let number = rest.parse::<i64>().ok();
    let reply = match (kind, number) {
        ("+", _) => Reply::Ok,
        (":", Some(number)) => Reply::Number(number),
        ("$", Some(-1)) => Reply::Nothing,
        ("$", Some(len)) => {
            let len = usize::try_from(len).map_err(|_| wrong(&line))?;
            let Some(text) = buffer.get(end + 2..end + 2 + len) else { return Ok(None) };
            if buffer.len() < end + len + 4 {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(text).into_owned();
            buffer.advance(end + len + 4);
            return Ok(Some(Reply::Text(text)));
        }
        _ => return Err(wrong(&line)),
    };
    buffer.advance(end + 2);
    Ok(Some(reply))
}

fn wrong(what: &str) -> Error {
    Error::Protocol(format!("Redis answered unexpectedly: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_taken_when_they_are_whole() {
        let mut buffer = BytesMut::from(&b"+OK\r\n:1\r\n$-1\r\n$3\r\nabc\r\n$3\r\nab"[..]);
        let mut next = || take(&mut buffer).unwrap();
        assert_eq!(next(), Some(Reply::Ok));
        assert_eq!(next(), Some(Reply::Number(1)));
        assert_eq!(next(), Some(Reply::Nothing));
        assert_eq!(next(), Some(Reply::Text("abc".to_owned())));
        assert_eq!(next(), None);
    }
}
