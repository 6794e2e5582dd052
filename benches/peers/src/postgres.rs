//! Postgres, by its advisory locks: `pg_advisory_lock` and `pg_advisory_unlock` of a number, as simple
//! queries. They live in shared memory and never reach the disk. Each connection is a process.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{Answer, Ask, Error, Link, Peer, Plan};

/// The version of the protocol, 3.0.
const PROTOCOL: i32 = 196_608;
/// What a read may bring.
const READ_BYTES: usize = 16 * 1024;
/// Kinds of messages.
const ERROR: u8 = b'E';
const READY: u8 = b'Z';

/// A Postgres server.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    /// Where it is.
    pub(crate) address: String,
    /// What is measured.
    pub(crate) plan: Plan,
}

/// A connection to a Postgres server.
#[derive(Debug)]
pub(crate) struct PostgresLink {
    /// The bytes.
    stream: TcpStream,
    /// What will be written next.
    unsent: BytesMut,
    /// What was read and not yet understood.
    unread: BytesMut,
    /// The numbers of the locks.
    numbers: Vec<usize>,
    /// Whether there is a session.
    is_greeted: bool,
}

impl Peer for Postgres {
    type Link = PostgresLink;

    async fn connect(&self, number: usize) -> Result<PostgresLink, Error> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (unsent, unread) = (BytesMut::new(), BytesMut::new());
        let numbers = (0..self.plan.slots()).map(|slot| self.plan.lock(number, slot)).collect();
        Ok(PostgresLink { stream, unsent, unread, numbers, is_greeted: false })
    }
}

impl PostgresLink {
    fn ask(&mut self, function: &str, slot: usize) {
        let query = format!("SELECT {function}({})", self.numbers[slot]);
        self.unsent.put_u8(b'Q');
        self.unsent.put_i32(i32::try_from(query.len() + 5).unwrap_or(i32::MAX));
        self.unsent.extend_from_slice(query.as_bytes());
        self.unsent.put_u8(0);
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// Reads until the server is ready for another query.
    async fn answered(&mut self) -> Result<(), Error> {
        loop {
            if let (Some(&kind), Some(len)) = (self.unread.first(), self.unread.get(1..5)) {
                let len = len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                if self.unread.len() > len {
                    let message = self.unread.split_to(1 + len);
                    match kind {
                        ERROR => {
                            let said = String::from_utf8_lossy(message.chunk()).into_owned();
                            return Err(Error::Protocol(format!("Postgres: {said:?}")));
                        }
                        READY => return Ok(()),
                        _ => continue,
                    }
                }
            }
            self.unread.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

impl Link for PostgresLink {
    async fn greet(&mut self) -> Result<(), Error> {
        let names = b"user\0postgres\0database\0postgres\0\0";
        self.unsent.put_i32(i32::try_from(names.len() + 8).unwrap_or(i32::MAX));
        self.unsent.put_i32(PROTOCOL);
        self.unsent.extend_from_slice(names);
        self.flush().await?;
        self.is_greeted = true;
        self.answered().await
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.is_greeted {
            self.greet().await?;
        }
        let releases = ask != Ask::Acquire;
        let acquires = matches!(ask, Ask::Acquire | Ask::Exchange);
        for slot in 0..self.numbers.len() {
            if releases {
                self.ask("pg_advisory_unlock", slot);
            }
            if acquires {
                self.ask("pg_advisory_lock", slot);
            }
        }
        self.flush().await?;
        for slot in 0..self.numbers.len() {
            if releases {
                self.answered().await?;
                hear(Answer::Released)?;
            }
            if acquires {
                self.answered().await?;
                hear(Answer::Granted { slot, token: None })?;
            }
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Error> {
        std::future::pending().await
    }

    async fn leave(mut self) -> Result<(), Error> {
        self.unsent.extend_from_slice(&[b'X', 0, 0, 0, 4]);
        self.flush().await
    }
}
