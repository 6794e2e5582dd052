//! What the nemesis does, and when it did it.
//!
//! The coordinator has its faults one after the other. What befalls a client process or the proxy is a
//! *spell*: every other time it goes on while other faults strike, so that a holder may be paused or cut
//! off over a crash of the coordinator.

use std::collections::BTreeMap;
use std::fs::File;
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
use super::worker::{Orders, TTL_MS};
use crate::proxy::{Proxy, Way};
use crate::random::Random;
use crate::raw::{Raw, hello_for};
use crate::support::{Server, run};
use crate::wall_clock::{DAY, WallClock, ahead_at, is_about, tidy_up_after};

/// How long clients may take to come to an end once nothing is in their way.
const LAST_ANSWERS: Duration = Duration::from_secs(60);
/// Connections of a flood.
const FLOOD: usize = 150;
/// Questions of one who does not read the answers.
const QUESTIONS: usize = 200;

/// Longer than the shortest lease.
const LEASE_OVER: Duration = Duration::from_millis(TTL_MS * 102 / 100 + 100);

/// How long something stands still.
#[derive(Clone, Copy)]
enum Length {
    LessThanALease,
    MoreThanALease,
}

/// Which way a wall clock jumps.
#[derive(Clone, Copy)]
enum Jump {
    Forwards,
    Backwards,
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
    /// What was lost in a crash, which nothing may be.
    pub(super) noticed: Vec<String>,
    /// When which client process stood still, as long as it lived.
    pub(super) stopped: Vec<(u64, Window)>,
    /// When not everything got through the proxy.
    pub(super) dark: Vec<Window>,
    /// When which client process was killed.
    pub(super) killed: Vec<(u64, u64)>,
    /// Client processes that did not come to an end.
    pub(super) stuck: Vec<u64>,
    /// How far the time of day of each client process was ahead last, in seconds.
    pub(super) ahead: BTreeMap<u64, i64>,
    /// How many client processes there were.
    pub(super) processes: u64,
}

/// A client process.
pub(super) struct Process {
    number: u64,
    child: Child,
    /// Its time of day.
    wall_clock: WallClock,
}

/// Something that goes on while other faults strike.
struct Spell {
    /// What.
    ill: Ill,
    /// Since when.
    from: u64,
    /// Until when at least.
    until: Instant,
}

/// What goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ill {
    /// Not everything gets through the proxy.
    Dark,
    /// A client process stands still.
    Stopped(u64),
}

impl Process {
    /// Has one begin its work.
    pub(super) fn begin(orders: &Orders) -> Self {
        let clock = orders.directory.join(format!("{}.clock", orders.process));
        let wall_clock = WallClock::new(clock);
        let test = "nemesis::worker::a_client_process_of_the_nemesis";
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .envs(orders.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        wall_clock.govern(&mut command);
        let child = command.spawn().unwrap();
        Self { number: orders.process, child, wall_clock }
    }

    /// Lets them come to an end with what they began; the numbers of those that do not.
    pub(super) fn end_all(processes: &mut [Self]) -> Vec<u64> {
        for process in &mut *processes {
            drop(process.child.stdin.take());
        }
        let (mut stuck, give_up_at) = (Vec::new(), Instant::now() + LAST_ANSWERS);
        for process in processes {
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
                None => stuck.push(process.number),
            }
        }
        stuck
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        tidy_up_after(&self.child.id().to_string());
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
    /// When which fault has struck, a line each.
    log: File,
    /// What goes on at the moment.
    spells: Vec<Spell>,
    /// Until when, after a crash, the coordinator mostly does not crash again: leases end and locks
    /// pass on only in a run that lasts.
    calm_until: Instant,
    /// How far the coordinator's time of day is ahead, in seconds.
    ahead: i64,
    /// What comes next.
    random: Random,
    /// What was done.
    deeds: Deeds,
}

impl Nemesis {
    pub(super) fn new(server: Server, directory: PathBuf, processes: u64, random: Random) -> Self {
        let mut nemesis = Self {
            proxy: Proxy::to(&server.address),
            server: Some(server),
            processes: Vec::new(),
            log: File::create(directory.join("faults")).unwrap(),
            directory,
            spells: Vec::new(),
            calm_until: Instant::now(),
            ahead: 0,
            random,
            deeds: Deeds::default(),
        };
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
        self.processes.push(Process::begin(&orders));
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

    /// Counts a fault, and writes it down for whoever has to find out what came of it.
    fn count(&mut self, what: &'static str) {
        *self.deeds.counts.entry(what).or_default() += 1;
        writeln!(self.log, "{} {what}", now_us()).unwrap();
    }

    /// Lets things go on for a while, then does something.
    pub(super) fn strike(&mut self) {
        thread::sleep(self.millis(50, 400));
        self.end_spells(Instant::now());
        match self.random.below(22) {
            0..6 if Instant::now() > self.calm_until || self.random.once_in(8) => {
                self.restart("coordinator killed", Signal::KILL);
            }
            6 => self.restart("coordinator stopped in order", Signal::TERM),
            7 | 8 => self.stop_server(),
            0 | 9 | 10 => self.stop_process(),
            11 => self.kill_process(),
            1 | 12 => self.cut(),
            2 | 3 | 13..18 => self.darken(),
            4 | 18 => self.set_wall_clock_of_server(),
            5 | 19 => self.set_wall_clock_of_process(),
            20 => self.flood(),
            _ => self.ask_and_not_read(),
        }
    }

    /// What began at `from` goes on for so long. Every other time there is nothing else meanwhile: one
    /// fault must not hide what another does.
    fn begin_spell(&mut self, ill: Ill, from: u64, length: Duration) {
        self.spells.push(Spell { ill, from, until: Instant::now() + length });
        if self.random.once_in(2) {
            thread::sleep(length);
            self.end_spells(Instant::now());
        }
    }

    fn goes_on(&self, ill: Ill) -> bool {
        self.spells.iter().any(|spell| spell.ill == ill)
    }

    /// Ends what has gone on for as long as it should by `now`.
    fn end_spells(&mut self, now: Instant) {
        let over: Vec<Spell> = self.spells.extract_if(.., |spell| spell.until <= now).collect();
        for Spell { ill, from, .. } in over {
            match ill {
                Ill::Dark => {
                    self.proxy.turn(Way::Open);
                    // What was lost on the way is missing in the middle of a stream: nothing more can
                    // come of it.
                    self.proxy.cut();
                    self.deeds.dark.push(Window { from, until: now_us() });
                }
                Ill::Stopped(number) => {
                    // It may have been killed meanwhile.
                    if let Some(process) = self.processes.iter().find(|it| it.number == number) {
                        process.signal(Signal::CONT);
                    }
                    self.deeds.stopped.push((number, Window { from, until: now_us() }));
                }
            }
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
            self.check_start();
            self.calm_until = Instant::now() + LEASE_OVER + self.millis(0, 3 * TTL_MS);
        }
        self.count(what);
    }

    /// After a crash everything goes on, and there is no grace period (rule J4).
    fn check_start(&mut self) {
        let status = run(self.server().client(&["status", "--json"]));
        let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
        let start = &status["journal"]["start"];
        let is_in_grace = status["server"]["grace_ms"].as_u64().is_some_and(|left| left > 0);
        if start["kind"] != "replayed" || is_in_grace {
            self.deeds.noticed.push(format!("a crash was noticed at {}: {start}", now_us()));
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
        let at = self.random.below(self.processes.len());
        let ill = Ill::Stopped(self.processes[at].number);
        if self.goes_on(ill) {
            return;
        }
        let (name, length) = self.pause();
        let from = now_us();
        self.processes[at].signal(Signal::STOP);
        self.count(match name {
            Length::LessThanALease => "clients paused for less than a lease",
            Length::MoreThanALease => "clients paused for more than a lease",
        });
        self.begin_spell(ill, from, length);
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

    fn cut(&mut self) {
        self.proxy.cut();
        self.count("connections cut");
    }

    /// A day or two ahead of the true time, then as much behind, and so on.
    fn jump(&mut self, ahead: i64) -> (i64, Jump) {
        let length = DAY + i64::from(self.random.next().to_le_bytes()[0]) * DAY / 255;
        if ahead > 0 { (-length, Jump::Backwards) } else { (length, Jump::Forwards) }
    }

    fn set_wall_clock_of_server(&mut self) {
        let (ahead, name) = self.jump(self.ahead);
        self.ahead = ahead;
        self.server().home.wall_clock().set(ahead);
        // Or it would be no fault at all.
        let told = ahead_at(self.server());
        assert!(is_about(told, ahead), "the coordinator is {told} s ahead, and not {ahead} s");
        self.count(match name {
            Jump::Forwards => "coordinator's wall clock a day or more forwards",
            Jump::Backwards => "coordinator's wall clock a day or more backwards",
        });
    }

    fn set_wall_clock_of_process(&mut self) {
        let at = self.random.below(self.processes.len());
        let number = self.processes[at].number;
        let before = self.deeds.ahead.get(&number).copied().unwrap_or_default();
        let (ahead, name) = self.jump(before);
        self.deeds.ahead.insert(number, ahead);
        self.processes[at].wall_clock.set(ahead);
        self.count(match name {
            Jump::Forwards => "a client's wall clock a day or more forwards",
            Jump::Backwards => "a client's wall clock a day or more backwards",
        });
    }

    fn darken(&mut self) {
        if self.goes_on(Ill::Dark) {
            return;
        }
        let ways = [
            (Way::Dark, "way dark"),
            (Way::Dark, "way dark"),
            (Way::DarkToServer, "way to the coordinator dark"),
            (Way::DarkToClient, "way to the clients dark"),
        ];
        let (way, name) = *self.random.pick(&ways);
        let from = now_us();
        self.proxy.turn(way);
        // Mostly so long that holders behind it lose what others wait for.
        let (_, length) = if self.random.once_in(2) { self.pause() } else { self.long_pause() };
        self.count(name);
        self.begin_spell(Ill::Dark, from, length);
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
        while let Some(last) = self.spells.iter().map(|spell| spell.until).max() {
            self.end_spells(last);
        }
        let stuck = Process::end_all(&mut self.processes);
        self.deeds.stuck.extend(stuck);
        (self.server.take().unwrap(), self.deeds)
    }
}
