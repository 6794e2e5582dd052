//! What the nemesis does, and when it did it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use bytes::BytesMut;
use coordinator::wire::{Attach, ClientMessage, Query, encode_frame};
use rustix::process::{Pid, Signal, kill_process};

use super::record::{Window, now_us};
use super::worker::{Orders, TTL, TTL_MS};
use crate::proxy::{Proxy, Way};
use crate::random::Random;
use crate::raw::{Raw, hello_for};
use crate::support::Server;

/// How long clients may take to come to an end once nothing is in their way.
const LAST_ANSWERS: Duration = Duration::from_secs(60);
/// Connections of a flood.
const FLOOD: usize = 150;
/// Questions of one who does not read the answers.
const QUESTIONS: usize = 200;

/// How long something stands still.
#[derive(Clone, Copy)]
enum Length {
    LessThanALease,
    MoreThanALease,
}

/// What was done, for judging what came of it.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    /// How often each fault struck.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// When the coordinator was not there, or stood still.
    pub(super) away: Vec<Window>,
    /// When it crashed, until it was ready again.
    pub(super) crashes: Vec<Window>,
    /// When which client process stood still.
    pub(super) stopped: Vec<(u64, Window)>,
    /// When which client process was killed.
    pub(super) killed: Vec<(u64, u64)>,
    /// Client processes that did not come to an end.
    pub(super) stuck: Vec<u64>,
    /// How many client processes there were.
    pub(super) processes: u64,
}

/// A client process.
struct Process {
    number: u64,
    child: Child,
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one who does it.
pub(super) struct Nemesis {
    /// Whom; none only while it is away.
    server: Option<Server>,
    /// In the way of half of the sessions.
    proxy: Proxy,
    /// The others.
    processes: Vec<Process>,
    /// Where they write.
    directory: PathBuf,
    /// What comes next.
    random: Random,
    /// What was done.
    deeds: Deeds,
}

impl Nemesis {
    pub(super) fn new(server: Server, directory: PathBuf, processes: u64, random: Random) -> Self {
        let proxy = Proxy::to(&server.address);
        let server = Some(server);
        let (deeds, mut begun) = (Deeds::default(), Vec::new());
        begun.reserve(usize::try_from(processes).unwrap());
        let mut nemesis = Self { server, proxy, processes: begun, directory, random, deeds };
        for _ in 0..processes {
            nemesis.begin_process();
        }
        nemesis
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn begin_process(&mut self) {
        let orders = Orders {
            process: self.deeds.processes,
            directory: self.directory.clone(),
            server: self.server().address.clone(),
            proxy: self.proxy.address.clone(),
            seed: self.random.next(),
        };
        self.deeds.processes += 1;
        let test = "nemesis::worker::a_client_process_of_the_nemesis";
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .envs(orders.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.processes.push(Process { number: orders.process, child });
    }

    /// From `least` milliseconds on, up to `most`.
    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.random.next() % (most - least))
    }

    /// Shorter than a lease, or longer.
    fn pause(&mut self) -> (Length, Duration) {
        if self.random.once_in(2) { self.short_pause() } else { self.long_pause() }
    }

    fn short_pause(&mut self) -> (Length, Duration) {
        (Length::LessThanALease, self.millis(50, TTL_MS / 3))
    }

    fn long_pause(&mut self) -> (Length, Duration) {
        (Length::MoreThanALease, self.millis(TTL_MS * 11 / 10, TTL_MS * 7 / 4))
    }

    fn count(&mut self, what: &'static str) {
        *self.deeds.counts.entry(what).or_default() += 1;
    }

    /// Lets things go on for a while, then does something.
    pub(super) fn strike(&mut self) {
        thread::sleep(self.millis(100, 800));
        match self.random.below(16) {
            0..3 => self.restart("coordinator killed", Signal::KILL),
            3 => self.restart("coordinator stopped in order", Signal::TERM),
            4 | 5 => self.stop_server(),
            6 | 7 => self.stop_process(),
            8 => self.kill_process(),
            9 | 10 => {
                self.proxy.cut();
                self.count("connections cut");
            }
            11..14 => self.darken(),
            14 => self.flood(),
            _ => self.ask_and_not_read(),
        }
    }

    fn restart(&mut self, what: &'static str, signal: Signal) {
        let from = now_us();
        let server = self.server.take().unwrap().end_by(signal).restart();
        self.server = Some(server);
        let away = Window { from, until: now_us() };
        self.deeds.away.push(away);
        if signal == Signal::KILL {
            self.deeds.crashes.push(away);
        }
        self.count(what);
        // More often than not, the grace period ends before the next fault.
        if self.random.below(3) > 0 {
            thread::sleep(TTL);
        }
    }

    fn stop_server(&mut self) {
        let (name, length) = self.pause();
        let from = now_us();
        self.server().process.signal(Signal::STOP);
        thread::sleep(length);
        self.server().process.signal(Signal::CONT);
        self.deeds.away.push(Window { from, until: now_us() });
        self.count(match name {
            Length::LessThanALease => "coordinator paused for less than a lease",
            Length::MoreThanALease => "coordinator paused for more than a lease",
        });
    }

    fn stop_process(&mut self) {
        let (name, length) = self.pause();
        let at = self.random.below(self.processes.len());
        let process = &self.processes[at];
        let (number, from) = (process.number, now_us());
        process.signal(Signal::STOP);
        thread::sleep(length);
        process.signal(Signal::CONT);
        self.deeds.stopped.push((number, Window { from, until: now_us() }));
        self.count(match name {
            Length::LessThanALease => "clients paused for less than a lease",
            Length::MoreThanALease => "clients paused for more than a lease",
        });
    }

    fn kill_process(&mut self) {
        let at = self.random.below(self.processes.len());
        let process = self.processes.swap_remove(at);
        process.signal(Signal::KILL);
        let number = process.number;
        // Buried before the time is taken: it has written all that it will.
        drop(process);
        self.deeds.killed.push((number, now_us()));
        self.count("clients killed");
        self.begin_process();
    }

    fn darken(&mut self) {
        let ways = [
            (Way::Dark, "way dark"),
            (Way::DarkToServer, "way to the coordinator dark"),
            (Way::DarkToServer, "way to the coordinator dark"),
            (Way::DarkToClient, "way to the clients dark"),
        ];
        let (way, name) = *self.random.pick(&ways);
        self.proxy.turn(way);
        // Mostly so long that holders behind it lose what others wait for.
        let (_, length) = if self.random.once_in(2) { self.pause() } else { self.long_pause() };
        thread::sleep(length);
        self.proxy.turn(Way::Open);
        // What was lost on the way is missing in the middle of a stream: nothing more can come of it.
        self.proxy.cut();
        self.count(name);
    }

    fn flood(&mut self) {
        let mut sockets = Vec::new();
        for _ in 0..FLOOD {
            let Ok(mut socket) = TcpStream::connect(&self.server().address) else { continue };
            let noise: Vec<u8> =
                (0..self.random.below(64)).map(|_| self.random.next().to_le_bytes()[0]).collect();
            let _closed_already = socket.write_all(&noise);
            if self.random.once_in(2) {
                let _closed_already = socket.shutdown(Shutdown::Write);
            }
            sockets.push(socket);
        }
        thread::sleep(self.millis(10, 300));
        self.count("floods of connections");
    }

    fn ask_and_not_read(&mut self) {
        let mut deaf = Raw::connect(self.server());
        // Its session is not to outlive it, nor to make grace periods longer.
        deaf.say(&[hello_for(Attach::New, 2_000, Some(0))]);
        deaf.socket.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let question = ClientMessage::Inspect { query_id: 1, query: Query::Locks { cursor: 0 } };
        let mut frames = BytesMut::new();
        for _ in 0..QUESTIONS {
            encode_frame(&question, &mut frames).unwrap();
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) && deaf.socket.write_all(&frames).is_ok() {}
        self.count("readers that do not read");
    }

    /// Does nothing more, and lets all come to an end.
    pub(super) fn relent(mut self) -> (Server, Deeds) {
        self.proxy.turn(Way::Open);
        self.proxy.cut();
        for process in &mut self.processes {
            drop(process.child.stdin.take());
        }
        let give_up_at = Instant::now() + LAST_ANSWERS;
        for process in &mut self.processes {
            let ended = loop {
                match process.child.try_wait().unwrap() {
                    Some(status) => break Some(status),
                    None if Instant::now() > give_up_at => break None,
                    None => thread::sleep(Duration::from_millis(10)),
                }
            };
            match ended {
                Some(status) if status.success() => {}
                Some(status) => panic!("client process {}: {status}", process.number),
                None => self.deeds.stuck.push(process.number),
            }
        }
        (self.server.take().unwrap(), self.deeds)
    }
}
