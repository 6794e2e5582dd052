//! Where connections come from.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection that is being made.
pub(crate) type Connecting<Io> = Pin<Box<dyn Future<Output = io::Result<Io>> + Send + 'static>>;

/// Makes connections to one server.
pub(crate) trait Connector: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Whether it can make another.
    fn can_connect(&self) -> bool {
        true
    }

    /// Begins to make one.
    fn connect(&mut self) -> Connecting<Self::Io>;
}

/// Connects over TCP. The name of the server is looked up each time: it may have moved.
#[derive(Debug)]
pub(in crate::client) struct Dial(pub(in crate::client) Arc<str>);

impl Connector for Dial {
    type Io = TcpStream;

    fn connect(&mut self) -> Connecting<TcpStream> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            let stream = TcpStream::connect(&*server).await?;
            // What is sent is sent at once.
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

/// For a connection that somebody else made, and only once.
#[derive(Debug)]
pub(in crate::client) struct Once<Io>(PhantomData<fn() -> Io>);

impl<Io> Once<Io> {
    pub(in crate::client) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connector for Once<Io> {
    type Io = Io;

    fn can_connect(&self) -> bool {
        false
    }

    fn connect(&mut self) -> Connecting<Io> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}
