//! Members of a cluster, as clients meet them: who leads passes connections on to a coordinator, the others
//! say who leads. A change of leader is what clients see of one, whatever brings it about.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use bytes::BytesMut;
use coordinator::types::{GoodbyeCode, RejectionCode};
use coordinator::wire::{ServerMessage, encode_frame};

/// What a member does.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// It passes its clients on to this coordinator.
    Leads(String),
    /// It names this one as the leader; nobody, if that is empty.
    Names(String),
    /// Its process is dead, and its machine says so to who connects.
    Dead,
    /// Another program has taken its port, which speaks HTTP.
    SpeaksHttp,
}

/// What a member and its connections share.
struct State {
    role: Role,
    /// The client's ends of connections that are open, by number.
    open: BTreeMap<usize, TcpStream>,
}

/// A member.
pub(crate) struct Member {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    /// Connections that were made to it.
    connections: Arc<AtomicUsize>,
}

impl Member {
    /// One that knows nobody who leads.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State { role: Role::Names(String::new()), open: BTreeMap::new() };
        let (state, connections) = (Arc::new(Mutex::new(state)), Arc::new(AtomicUsize::new(0)));
        let (shared, counted) = (Arc::clone(&state), Arc::clone(&connections));
        thread::spawn(move || {
            for client in listener.incoming() {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let state = Arc::clone(&shared);
                let client = client.unwrap();
                thread::spawn(move || serve(client, number, &state));
            }
        });
        Self { address, state, connections }
    }

    /// So many.
    pub(crate) fn several<const N: usize>() -> [Self; N] {
        std::array::from_fn(|_| Self::start())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// It does this from now on. Connections that are open end without a word.
    pub(crate) fn becomes(&self, role: Role) {
        let mut state = self.lock();
        state.role = role;
        for (_, stream) in std::mem::take(&mut state.open) {
            let _ended_already = stream.shutdown(Shutdown::Both);
        }
    }

    /// It hands over: each client is told who leads.
    pub(crate) fn hands_over_to(&self, leader: &Self) {
        let mut state = self.lock();
        state.role = Role::Names(leader.address.clone());
        for (_, mut stream) in std::mem::take(&mut state.open) {
            say_who_leads(&mut stream, &leader.address);
            let _ended_already = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// The list of them, as `--server` takes it.
pub(crate) fn servers(members: &[Member]) -> String {
    members.iter().map(|member| &*member.address).collect::<Vec<_>>().join(",")
}

fn serve(mut client: TcpStream, number: usize, state: &Arc<Mutex<State>>) {
    let role = state.lock().unwrap().role.clone();
    let leader = match role {
        Role::Dead => return,
        Role::SpeaksHttp => {
            if read_frame(&mut client).is_some() {
                let _gone = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
            return;
        }
        Role::Names(leader) => {
            if read_frame(&mut client).is_some() {
                say_who_leads(&mut client, &leader);
            }
            return;
        }
        Role::Leads(leader) => leader,
    };
    let Ok(mut server) = TcpStream::connect(leader) else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    state.lock().unwrap().open.insert(number, client.try_clone().unwrap());
    let passing = thread::spawn(move || {
        let _broken = std::io::copy(&mut up, &mut down);
        let _ended_already = down.shutdown(Shutdown::Both);
    });
    // Frame by frame, so that a goodbye stands between two.
    while let Some(frame) = read_frame(&mut server) {
        let state = state.lock().unwrap();
        if !state.open.contains_key(&number) || client.write_all(&frame).is_err() {
            break;
        }
    }
    for stream in [&client, &server] {
        let _ended_already = stream.shutdown(Shutdown::Both);
    }
    state.lock().unwrap().open.remove(&number);
    let _done = passing.join();
}

/// The next frame, with its length.
fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame).ok()?;
    let length = u32::from_le_bytes(*frame.first_chunk()?) as usize;
    frame.resize(4 + length, 0);
    stream.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}

fn say_who_leads(stream: &mut TcpStream, leader: &str) {
    let (code, rejection) = (GoodbyeCode::NotLeader, RejectionCode::NONE);
    let mut frame = BytesMut::new();
    let message = ServerMessage::Goodbye { code, rejection, message: leader.to_owned() };
    encode_frame(&message, &mut frame).unwrap();
    let _gone = stream.write_all(&frame);
}
