//! Ports that nobody takes meanwhile: of what is started again where it was, or is yet to be started.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::sync::Mutex;

/// Ports of tests. Above them, the system gives ports to whoever asks for any and to outgoing connections, also while
/// what was killed has yet to be started again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody listens on, and that no test is given but this one, until it is dropped.
pub(crate) struct FreePort {
    pub(crate) number: u16,
    /// At an address at which nobody listens for anything else.
    _given: TcpListener,
}

impl FreePort {
    pub(crate) fn new() -> Self {
        let mut bytes = [0; 2];
        for _ in 0..1_000 {
            File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
            let number = PORTS.start + u16::from_ne_bytes(bytes) % (PORTS.end - PORTS.start);
            let Ok(given) = TcpListener::bind(("127.86.0.1", number)) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _given: given };
            }
        }
        panic!("no port is free at 127.86.0.1 and 127.0.0.1, or the first is no address here");
    }
}

/// Ports that this process was given for good.
static GIVEN: Mutex<Vec<FreePort>> = Mutex::new(Vec::new());

/// One that this process has until it ends.
pub(crate) fn free_port() -> u16 {
    let port = FreePort::new();
    let number = port.number;
    GIVEN.lock().unwrap().push(port);
    number
}
