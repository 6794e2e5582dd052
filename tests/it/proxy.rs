//! A way between a client and its coordinator that breaks as a test wants it to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the way does to what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Way {
    /// It gets there.
    Open,
    /// Nothing gets anywhere, and nobody is told.
    Dark,
    /// What the client sends is lost; what the server sends gets there.
    DarkToServer,
    /// What the server sends is lost; what the client sends gets there.
    DarkToClient,
}

/// Passes connections on to a coordinator.
pub(crate) struct Proxy {
    pub(crate) address: String,
    way: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub(crate) fn to(server: &str) -> Self {
        Self::at("127.0.0.1:0", server)
    }

    /// The same, reached at this address.
    pub(crate) fn at(address: &str, server: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let way = Arc::new(AtomicU8::new(Way::Open as u8));
        let open = Arc::new(Mutex::new(Vec::new()));
        let (server, shared, kept) = (server.to_owned(), Arc::clone(&way), Arc::clone(&open));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // A dark way lets nobody begin to talk; whoever tries waits for nothing.
                let Ok(server) = TcpStream::connect(&server) else { continue };
                for (from, to, dark) in
                    [(&client, &server, Way::DarkToServer), (&server, &client, Way::DarkToClient)]
                {
                    from.set_nodelay(true).unwrap();
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let way = Arc::clone(&shared);
                    thread::spawn(move || pass(from, to, dark, &way));
                }
                kept.lock().unwrap().extend([client, server]);
            }
        });
        Self { address, way, open }
    }

    /// Changes the way, for connections that are open and those that come.
    pub(crate) fn turn(&self, way: Way) {
        self.way.store(way as u8, Ordering::SeqCst);
    }

    /// Breaks all connections that are open.
    pub(crate) fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _broken_already = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, dark: Way, way: &AtomicU8) {
    let (mut chunk, mut has_gap) = ([0; 4096], false);
    while let Ok(read) = from.read(&mut chunk)
        && read > 0
    {
        let now = way.load(Ordering::SeqCst);
        if now == Way::Dark as u8 || now == dark as u8 {
            has_gap = true;
            continue;
        }
        // No network leaves something out and goes on: what comes after a gap never arrives.
        if has_gap || to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    let _broken_already = to.shutdown(Shutdown::Both);
}
