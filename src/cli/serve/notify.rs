//! Notifications to systemd for a service of `Type=notify`: ready, and stopping. See
//! `sd_notify(3)`: a datagram to the socket that `NOTIFY_SOCKET` names.

use std::env;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells it, if somebody wants to know. Whoever does not listen is told to the log, and no more: that
/// is no reason not to serve.
pub(crate) fn tell(state: &str) {
    let Some(name) = env::var_os(SOCKET).filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(name.as_bytes(), state) {
        log::warn!("cannot notify {} ({SOCKET}) of {state}: {error}", name.display());
    }
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // Its buffer may be full, and nobody waits for it here.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address(name)?).map(drop)
}

/// A path, or a name of Linux's that begins with `@` and is in no directory.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))
}
