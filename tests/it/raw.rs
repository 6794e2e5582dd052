//! A client that is nothing but a socket: it says what a test wants said, and never more.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use bytes::BytesMut;
use coordinator::wire::{
    self, Attach, ClientMessage, Mode, RawClaim, ServerMessage, decode, encode_frame,
};

use crate::support::{DEADLINE, Server};
use coordinator::types::RequestId;

/// A Hello for a new session with a ttl of a minute.
pub(crate) fn hello() -> ClientMessage {
    hello_for(Attach::New, 60_000, None)
}

/// A Hello for this session.
pub(crate) fn hello_for(attach: Attach, ttl_ms: u32, linger_ms: Option<u32>) -> ClientMessage {
    ClientMessage::Hello(wire::Hello { ttl_ms, linger_ms, ..wire::Hello::new(attach, "raw") })
}

/// An exclusive request that waits for ever.
pub(crate) fn request(request: u64, name: &str) -> ClientMessage {
    ClientMessage::Request(wire::Request::new(
        RequestId::new(request),
        [RawClaim { name: name.into(), mode: Mode::Exclusive }],
    ))
}

/// A client that is nothing but a socket.
pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
    unread: BytesMut,
}

impl Raw {
    pub(crate) fn connect(server: &Server) -> Self {
        Self::connect_to(&server.address)
    }

    pub(crate) fn connect_to(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        Self::over(socket)
    }

    /// One over a socket that is connected.
    pub(crate) fn over(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, unread: BytesMut::new() }
    }

    pub(crate) fn say(&mut self, messages: &[ClientMessage]) {
        let mut frames = BytesMut::new();
        for message in messages {
            encode_frame(message, &mut frames).unwrap();
        }
        self.socket.write_all(&frames).unwrap();
    }

    pub(crate) fn hear(&mut self) -> ServerMessage {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(field) = self.unread.first_chunk::<4>() {
                let len = u32::from_le_bytes(*field) as usize;
                if self.unread.len() >= 4 + len {
                    let frame = self.unread.split_to(4 + len);
                    return decode(&frame[4..]).unwrap();
                }
            }
            match self.socket.read(&mut chunk) {
                // This process was stopped while it waited.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    let read = read.unwrap();
                    assert!(read > 0, "the server closed the connection");
                    self.unread.extend_from_slice(&chunk[..read]);
                }
            }
        }
    }

    /// Whether the server closes the connection, whatever it says before.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }
}
