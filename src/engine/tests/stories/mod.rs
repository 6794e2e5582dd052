//! Stories: text in, text out. Each file in `stories/` is one promise of the engine, told as
//! commands and the effects they have; the invariants are checked after every event.
//!
//! ```text
//! open 1 2 [ttl=10s] [linger=0s]     sessions, named by numbers
//! request 1 printer                  exclusive; printer=shared, printer=2/3 for 2 of 3 permits,
//!                                    several locks in one request: a b=shared
//!    [wait=never|5s] [id=7] [owner=1] [delay=5s] [keep=5s: at least] [note=…] [converts=6] [ticket=1/5: of epoch 1]
//!    [supersede=older]
//!    and the tag [quiet]: no progress
//! release 1 [id=7] [token=3]         of the session's latest request and its token, unless said
//! cancel 1 [id=7]
//! keepalive 1      goodbye 1         cut 1 (the connection breaks)
//! resume 1 [generation=2]            after a crash: as the session before
//! reclaim 1 [id=7] [token=3]         of the latest grant, with the claims of its request
//! reclaim 1 [id=7] [token=5] [seal=1] what was granted, with its seal, of that run
//! requeue 1 [id=7] [told=1]          the latest request once more, with its ticket, of that run
//! account 1 [held=7/8] [waiting=9]   what the client knows of
//!    [from=2] [to=5]
//! unparsed 1 [id=7]                  something that the edge could not parse
//! old 1 keepalive|goodbye|cut        of the session's first connection
//! revoke printer token=3             by an operator
//! wait 5s                            time passes; deadlines are met as they come
//! stall 5s                           time passes, but nobody looks
//! disk broken | disk works           what is to be durable waits, or is done
//! tokens below=3                     starts anew, with so many numbers reserved
//! limit waiters=2 sessions=2 …       starts anew, with other limits
//! watch printer    unwatch printer   listen on|off|tenures
//! hush 1           unhush 1          its grants are counted instead of told, and are again
//! tick             drain             status            look (at everything that is shown)
//! tally                              what is counted, and the locks that somebody waits for
//! crash            stop              the next run begins, after a crash or an orderly stop
//! ```
//!
//! `UPDATE_GOLDENFILES=1 cargo test` writes what was seen into the files.

mod aside;
mod restart;
mod tell;

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process;
use std::time::Duration;

use goldenscript::{Argument, Command as Line, Context, Runner};

use super::*;
use crate::types::Held;
use crate::types::*;

// A test for each, by the name of its file.
test_each_file::test_each_path! { in "./src/engine/stories" => told }

/// What the file says is what is seen.
fn told(file: &Path) {
    goldenscript::run(&mut Story::new(), file).unwrap();
}

/// A file is found when this is compiled, and a new one alone makes nothing be compiled.
#[test]
fn every_story_is_told() {
    let of_this_room = format!("{}::", module_path!().split_once("::").unwrap().1);
    let listed = process::Command::new(std::env::current_exe().unwrap())
        .args(["--list", &of_this_room])
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let mut told: Vec<_> = listed
        .lines()
        .filter_map(|line| line.strip_prefix(&of_this_room)?.strip_suffix(": test"))
        .filter(|name| *name != "every_story_is_told")
        .collect();
    let stories = concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine/stories");
    let mut files: Vec<_> = fs::read_dir(stories)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    told.sort_unstable();
    files.sort_unstable();
    assert_eq!(told, files, "touch {}, and run this again", file!());
}

/// A session as the story's teller knows it.
struct Teller {
    connection: ConnectionId,
    /// The one before.
    old_connection: ConnectionId,
    generation: u64,
    ttl: Duration,
    /// The run of its latest Welcome, which made its secret.
    secret: Epoch,
    /// Its latest request.
    latest: u64,
    /// Tokens by request.
    tokens: HashMap<u64, FencingToken>,
    /// When they were first granted, by request.
    granted: HashMap<u64, Timestamp>,
    /// The runs that sealed them, by request.
    seals: HashMap<u64, Epoch>,
    /// What was requested, by id.
    requests: HashMap<u64, Request>,
    /// What keeps its place, by id.
    places: HashMap<u64, Place>,
}

pub(super) struct Story {
    pub(super) table: Table,
    limits: Limits,
    pub(super) now: Timestamp,
    tellers: HashMap<u64, Teller>,
    /// What each request asked for, to show it with its grant.
    names: HashMap<(u64, u64), String>,
    connections: u64,
    queries: u64,
    pub(super) disk_works: bool,
    to_persist: Vec<Durable>,
    /// Forfeits that are to be recorded.
    to_record: Vec<(u64, Forfeit)>,
    /// The table in a copy of the directory.
    copy: Vec<u8>,
    /// What is on disk.
    pub(super) on_disk: Durable,
    recorded: Vec<(u64, Forfeit)>,
}

impl Story {
    pub(super) fn new() -> Self {
        Self::with(limits(), TOKEN_BLOCK)
    }

    pub(super) fn with(limits: Limits, below: u64) -> Self {
        Self {
            table: Table::new(limits, start(below), Seed::default(), Timestamp::default()),
            limits,
            now: Timestamp::default(),
            tellers: HashMap::new(),
            names: HashMap::new(),
            connections: 0,
            queries: 0,
            disk_works: true,
            to_persist: Vec::new(),
            to_record: Vec::new(),
            copy: Vec::new(),
            on_disk: start(below).durable,
            recorded: Vec::new(),
        }
    }

    fn teller(&mut self, session: u64) -> Result<&mut Teller, Failure> {
        self.tellers.get_mut(&session).ok_or_else(|| format!("no session {session}").into())
    }

    pub(super) fn handle(&mut self, event: &Event) -> String {
        let mut effects = Vec::new();
        self.table.handle(event, self.now, &mut effects);
        let mut text = String::new();
        for effect in effects {
            self.tell(&mut text, effect);
        }
        if self.disk_works {
            for durable in std::mem::take(&mut self.to_persist) {
                self.on_disk = durable;
                let more = self.handle(&Event::Persisted(durable));
                text.push_str(&more);
            }
            let count = self.to_record.len();
            if count > 0 {
                self.recorded.append(&mut self.to_record);
                let more = self.handle(&Event::Recorded { count });
                text.push_str(&more);
            }
        }
        text
    }

    fn say(&mut self, session: u64, command: Command) -> Result<String, Failure> {
        let connection = self.teller(session)?.connection;
        Ok(self.handle(&Event::Command { connection, command }))
    }

    fn open(&mut self, line: &Line) -> Result<String, Failure> {
        let mut text = String::new();
        let mut args = line.consume_args();
        let ttl = args.take_key("ttl").map(duration).transpose()?.unwrap_or(TTL_DEFAULT);
        let linger = args.take_key("linger").map(duration).transpose()?;
        let epoch = args.take_key("epoch-seen").map(str::parse).transpose()?.unwrap_or(0);
        let token = args.take_key("token-seen").map(str::parse).transpose()?.unwrap_or(0);
        while let Some(session) = args.next_pos() {
            let session: u64 = session.parse()?;
            self.connections += 1;
            let connection = ConnectionId::new(self.connections);
            let identity = Identity::new(format!("s{session}"))?;
            let teller = Teller {
                connection,
                old_connection: connection,
                generation: 1,
                ttl,
                secret: Epoch::default(),
                latest: 0,
                tokens: HashMap::new(),
                granted: HashMap::new(),
                seals: HashMap::new(),
                requests: HashMap::new(),
                places: HashMap::new(),
            };
            self.tellers.insert(session, teller);
            let told = self.handle(&Event::Attach {
                connection,
                peer: None,
                attach: Attach::Open {
                    session: SessionId::new(session.into()),
                    ttl: Ttl::new(ttl)?,
                    linger,
                    identity,
                },
                epoch_seen: Epoch::new(epoch),
                token_seen: FencingToken::new(token),
            });
            // A welcome that says nothing unusual is not worth a line.
            let usual = format!("{session} ← welcome Opened generation=1 ttl=10s\n");
            text.push_str(told.strip_prefix(&usual).unwrap_or(&told));
        }
        args.reject_next()?;
        Ok(text)
    }

    fn resume(&mut self, line: &Line) -> Result<String, Failure> {
        let mut args = line.consume_args();
        let session: u64 = args.next_pos().ok_or("which session?")?.parse()?;
        let given = args.take_key("generation").map(str::parse).transpose()?;
        let secret = args.take_key("secret").map(str::parse).transpose()?;
        self.connections += 1;
        let connection = ConnectionId::new(self.connections);
        let teller = self.teller(session)?;
        let generation = given.unwrap_or(teller.generation + 1);
        let ttl = Ttl::new(teller.ttl)?;
        let proved_in = secret.map_or(teller.secret, Epoch::new);
        let told = self.handle(&Event::Attach {
            connection,
            peer: None,
            attach: Attach::Resume {
                session: SessionId::new(session.into()),
                proved_in,
                generation: Generation::new(generation),
                ttl,
                linger: None,
                identity: Identity::new(format!("s{session}"))?,
            },
            epoch_seen: Epoch::new(0),
            token_seen: FencingToken::new(0),
        });
        if told.contains("welcome") {
            let teller = self.teller(session)?;
            teller.old_connection = teller.connection;
            (teller.connection, teller.generation) = (connection, generation);
        }
        Ok(told)
    }

    fn request(&mut self, line: &Line, context: &Context) -> Result<String, Failure> {
        let mut positions = line.args.iter();
        let session: u64 = match positions.next() {
            Some(Argument::Positional(session)) => session.parse()?,
            _ => return Err("which session?".into()),
        };
        let mut request = Request {
            progress: Progress::Told,
            ..Request::new(
                RequestId::new(self.teller(session)?.latest + 1),
                claim("placeholder", Mode::Exclusive)?,
            )
        };
        if context.tags.contains("quiet") {
            request.progress = Progress::Untold;
        }
        let mut claims = Vec::new();
        for arg in positions {
            match arg {
                Argument::Positional(name) => claims.push(claim(name, Mode::Exclusive)?),
                Argument::KeyValue(key, value) => match key.as_str() {
                    "id" => request.id = RequestId::new(value.parse()?),
                    "owner" => request.owner = OwnerId::new(value.parse()?),
                    "converts" => request.converts = Some(RequestId::new(value.parse()?)),
                    "wait" if value == "never" => request.wait = Wait::Never,
                    "wait" => request.wait = Wait::AtMost(duration(value)?),
                    "delay" => request.lock_delay = duration(value)?,
                    "keep" => {
                        let at_least = duration(value)?;
                        let extras = Extras { at_least, ..request.wants() };
                        request = request.with(extras);
                    }
                    "supersede" => {
                        let extras = Extras { supersede: Supersede::Older, ..request.wants() };
                        request = request.with(extras);
                    }
                    "note" => request.note = Note::new(value.as_str())?,
                    "ticket" => {
                        let (epoch, arrival) = value.split_once('/').ok_or("EPOCH/ARRIVAL")?;
                        let (epoch, arrival) = (epoch.parse()?, arrival.parse()?);
                        // Told by the run in which it began to wait.
                        let told_in = request.place.map_or(Epoch::new(epoch), |p| p.told_in);
                        request.place = Some(Place { ticket: Ticket { epoch, arrival }, told_in });
                    }
                    name if value == "shared" => claims.push(claim(name, Mode::Shared)?),
                    name => {
                        let (take, of) = value.split_once('/').ok_or("shared or TAKE/OF")?;
                        claims.push(claim(name, Mode::permits(take.parse()?, of.parse()?)?)?);
                    }
                },
                _ => return Err("an argument of a new kind".into()),
            }
        }
        let names: Vec<&str> = claims.iter().map(|claim| claim.name.as_str()).collect();
        let id = request.id.number();
        self.names.entry((session, id)).or_insert(names.join("+"));
        request.claims = Claims::new(claims)?;
        let teller = self.teller(session)?;
        teller.latest = teller.latest.max(id);
        teller.requests.entry(id).or_insert(request.clone());
        self.say(session, Command::Request(request))
    }

    fn account(&mut self, line: &Line) -> Result<String, Failure> {
        let mut args = line.consume_args();
        let session: u64 = args.next_pos().ok_or("which session?")?.parse()?;
        let ids = |list: Option<&str>| -> Result<Vec<u64>, Failure> {
            list.unwrap_or_default()
                .split('/')
                .filter(|id| !id.is_empty())
                .map(|id| Ok(id.parse()?))
                .collect()
        };
        let (held, waiting) = (ids(args.take_key("held"))?, ids(args.take_key("waiting"))?);
        let from = args.take_key("from").map_or(Ok(1), str::parse)?;
        let to = args.take_key("to").map(str::parse).transpose()?;
        let teller = self.teller(session)?;
        let token = |id: &u64| teller.tokens.get(id).copied().unwrap_or_default();
        let account = Account {
            from: RequestId::new(from),
            to: RequestId::new(to.unwrap_or(teller.latest)),
            held: held
                .iter()
                .map(|id| Held { request: RequestId::new(*id), token: token(id) })
                .collect(),
            waiting: waiting.into_iter().map(RequestId::new).collect(),
        };
        self.say(session, Command::Account(account))
    }

    fn command(&mut self, line: &Line) -> Result<String, Failure> {
        let mut args = line.consume_args();
        let mut text = String::new();
        let id = args.take_key("id").map(str::parse).transpose()?;
        let token = args.take_key("token").map(str::parse).transpose()?;
        let seal = args.take_key("seal").map(str::parse).transpose()?;
        let told = args.take_key("told").map(str::parse).transpose()?;
        while let Some(session) = args.next_pos() {
            let session: u64 = session.parse()?;
            let teller = self.teller(session)?;
            let request = id.unwrap_or(teller.latest);
            let granted = teller.tokens.get(&request).copied().unwrap_or_default();
            let token = token.map_or(granted, FencingToken::new);
            let request = RequestId::new(request);
            let connection = teller.connection;
            let answer = match line.name.as_str() {
                "release" => self.say(session, Command::Release { request, token })?,
                "cancel" => self.say(session, Command::Cancel { request })?,
                "keepalive" => self.say(session, Command::KeepAlive { sequence: 1 })?,
                "reclaim" => self.reclaim(session, request.number(), token, seal)?,
                "requeue" => self.requeue(session, request.number(), told)?,
                "goodbye" => self.say(session, Command::Goodbye)?,
                "unparsed" => {
                    let rejection = Rejection::SealMismatch;
                    self.say(session, Command::Unparsed { request, rejection })?
                }
                "withdraw" => {
                    let session = SessionId::new(session.into());
                    self.handle(&Event::Withdraw { session, request })
                }
                "cut" => self.handle(&Event::Disconnect { connection }),
                other => return Err(format!("unknown command {other}").into()),
            };
            text.push_str(&answer);
        }
        args.reject_next()?;
        Ok(text)
    }

    /// Lets time pass, meeting each deadline when it comes.
    pub(super) fn wait(&mut self, length: Duration) -> String {
        let end = self.now.after(length);
        let began = self.now;
        let mut text = String::new();
        while let Some(deadline) = self.table.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            let told = self.handle(&Event::Tick { heard: self.now });
            if !told.is_empty() {
                writeln!(text, "after {:?}:", self.now.since(began)).unwrap();
                text.push_str(&told);
            }
        }
        self.now = end;
        text
    }
}

fn duration(text: &str) -> Result<Duration, Failure> {
    let number = text.strip_suffix("ms").map(|ms| (ms, 1));
    let (number, unit) =
        number.or_else(|| text.strip_suffix('s').map(|s| (s, 1000))).ok_or("5s or 5ms")?;
    Ok(Duration::from_millis(number.parse::<u64>()? * unit))
}

impl Runner for Story {
    type Command = Line;

    fn run(&mut self, line: &Line, context: &Context) -> Result<String, Failure> {
        let first = line.consume_args().next_pos().unwrap_or_default().to_owned();
        match line.name.as_str() {
            "open" => self.open(line),
            "resume" => self.resume(line),
            "request" => self.request(line, context),
            "old" => self.old(line),
            "revoke" => self.revoke(line),
            "wait" => Ok(self.wait(duration(&first)?)),
            "stall" => {
                self.now = self.now.after(duration(&first)?);
                Ok(String::new())
            }
            "tick" => Ok(self.handle(&Event::Tick { heard: self.now })),
            "disk" => {
                self.disk_works = first == "works";
                Ok(if self.disk_works {
                    self.handle(&Event::Tick { heard: self.now })
                } else {
                    String::new()
                })
            }
            "tokens" => {
                let below = line.consume_args().take_key("below").ok_or("below=")?.parse()?;
                *self = Self::with(self.limits, below);
                Ok(String::new())
            }
            "limit" => self.limit(line),
            "allow" => self.allow(line),
            "account" => self.account(line),
            "crash" => Ok(self.restart(None)),
            "replay" => Ok(self.replay()),
            "copy" => Ok(self.copy()),
            "put_back" => Ok(self.put_back()),
            "stop" => Ok(self.restart(Some(self.table.snapshot()))),
            "drain" => Ok(self.handle(&Event::Drain)),
            "withhold" => Ok(self.handle(&Event::Withhold)),
            "proceed" => Ok(self.handle(&Event::Proceed)),
            "watch" | "unwatch" | "listen" | "hush" | "unhush" | "untold" => {
                self.look_on(&line.name, &first)
            }
            "status" => Ok(self.status()),
            "look" => Ok(self.look()),
            "tally" => Ok(self.tally()),
            _ => self.command(line),
        }
    }
}
