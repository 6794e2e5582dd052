//! The cast of the demo: clients that do the same over and over, each in a task of its own.

use std::fmt::Write as _;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::time::Duration;

use coordinator::access::Digest;
use coordinator::types::Credential;
use coordinator::{Client, Error, LockGuard, Observer, Servers};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Scene, draw};
use crate::cli::text::errors::Failure;

/// Principals of the demo, and the names that each may lock.
const TEAMS: [(&str, &str); 5] = [
    ("release", "\"deploy\", \"inventory\", \"staging\""),
    ("shop", "\"orders/*\", \"cart/*\""),
    ("data", "\"import/*\", \"gpu\", \"report\", \"nightly\""),
    ("ledger", "\"ledger/*\""),
    ("load", "\"load/*\""),
];
/// Who may break locks.
const OPERATOR: &str = "oncall";
/// Connections of a crowd, and requests of each.
const CROWD: (usize, usize) = (40, 50);
/// Locks that a crowd waits for.
const CROWDED: usize = 250;

/// What the cast needs.
pub(super) struct Stage {
    /// A credential for each of [`TEAMS`], and for the operator.
    credentials: Vec<Credential>,
}

impl Stage {
    /// One with new credentials.
    pub(super) fn new() -> Result<Self, Failure> {
        let credentials = (0..=TEAMS.len()).map(|_| draw()).collect::<Result<_, _>>()?;
        Ok(Self { credentials })
    }

    /// That of the operator.
    pub(super) fn operator(&self) -> &Credential {
        &self.credentials[TEAMS.len()]
    }

    /// The rules, as an access file.
    pub(super) fn access_file(&self) -> String {
        let mut text = String::new();
        for ((name, locks), credential) in TEAMS.iter().zip(&self.credentials) {
            let digest = Digest::of(credential.reveal());
            let _infallible = writeln!(
                text,
                "[[principal]]\nname = \"{name}\"\ncredentials = [\"{digest}\"]\n\
                 may = [ {{ do = [\"lock\", \"see\"], names = [{locks}] }} ]"
            );
        }
        let digest = Digest::of(self.operator().reveal());
        text + &format!(
            "[[principal]]\nname = \"{OPERATOR}\"\ncredentials = [\"{digest}\"]\n\
             may = [ {{ do = [\"see\", \"break\"], names = [\"*\"] }}, {{ do = [\"admin\"] }} ]\n\
             [anyone]\nmay = [ {{ do = [\"see\"], names = [\"*\"] }}, {{ do = [\"admin\"] }} ]\n"
        )
    }

    /// Plays a scene, until what this gives is dropped.
    pub(super) fn play(&self, scene: Scene, address: SocketAddr) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let mut cast = Cast { stage: self, server: address.to_string(), tasks: &mut tasks };
        match scene {
            Scene::Full => cast.full(),
            Scene::Quiet => cast.quiet(),
            Scene::Few => cast.few(),
            Scene::Crowd => cast.crowd(),
        }
        tasks
    }
}

/// Puts clients on the stage.
struct Cast<'a> {
    /// Who shows what.
    stage: &'a Stage,
    /// Where the coordinator is.
    server: String,
    /// Where clients run.
    tasks: &'a mut JoinSet<()>,
}

/// A lock, and what it is for.
#[derive(Clone, Copy)]
struct Part {
    /// The lock.
    lock: &'static str,
    /// Why, for others.
    note: &'static str,
    /// For how many seconds it is held.
    holds: f64,
    /// Seconds until it is asked for again.
    pauses: f64,
}

impl Cast<'_> {
    /// A client that plays.
    fn add<F>(
        &mut self,
        team: &str,
        identity: &str,
        play: impl FnOnce(Client) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), Error>> + Send,
    {
        let place = TEAMS.iter().position(|(name, _)| *name == team).unwrap_or_default();
        let credential = self.stage.credentials[place].clone();
        let builder = Client::builder().identity(identity).credential(credential);
        let server = self.server.clone();
        self.tasks.spawn(async move {
            if let Ok(client) = builder.connect(server).await {
                // The coordinator is gone, or the credential is not what it was: the play is over.
                let _over = play(client).await;
            }
        });
    }

    /// A client that takes one lock again and again, from a moment on.
    fn turns(&mut self, team: &str, identity: &str, after: f64, part: Part) {
        self.add(team, identity, async move |client: Client| {
            pause(after).await;
            loop {
                let guard = client.lock(part.lock).note(part.note).await?;
                hold(guard, part.holds).await;
                pause(part.pauses).await;
            }
        });
    }

    fn quiet(&mut self) {
        let deploy = Part { lock: "deploy", note: "release 2.3", holds: 1e6, pauses: 0.0 };
        self.turns("release", "ci-7 ann@build7:8123", 0.0, deploy);
        let nightly = Part { lock: "nightly", note: "nightly totals", ..deploy };
        self.turns("data", "cron@etl-2:77", 0.0, nightly);
        self.pairs();
    }

    fn few(&mut self) {
        let deploy = Part { lock: "deploy", note: "release 2.3", holds: 1e6, pauses: 0.0 };
        self.turns("release", "ci-7 ann@build7:8123", 0.0, deploy);
        self.turns("release", "ci-8 bob@build8:4711", 0.6, Part { note: "hotfix 2.2.9", ..deploy });
        let chain = async |client: Client| {
            let owner = client.owner();
            pause(0.4).await;
            let inventory = owner.lock("inventory").note("stock-taking").await?;
            let deploy = owner.lock("deploy").note("stock-taking").await?;
            drop((inventory, deploy));
            Ok(())
        };
        self.add("release", "stock@batch-1:902", chain);
        let inventory = Part { lock: "inventory", note: "price update", ..deploy };
        self.turns("release", "prices@batch-3:17", 0.8, inventory);
        self.pairs();
    }

    fn full(&mut self) {
        let deploy = Part { lock: "deploy", note: "release 2.3", holds: 75.0, pauses: 2.0 };
        self.turns("release", "ci-7 ann@build7:8123", 0.0, deploy);
        self.turns("release", "ci-8 bob@build8:4711", 0.5, Part { note: "hotfix 2.2.9", ..deploy });
        self.turns(
            "release",
            "ci-9 eve@build9:1205",
            1.0,
            Part { note: "release 2.4-rc1", ..deploy },
        );
        let chain = async |client: Client| {
            loop {
                let owner = client.owner();
                pause(0.8).await;
                let inventory = owner.lock("inventory").note("stock-taking").await?;
                let deploy = owner.lock("deploy").note("stock-taking").await?;
                pause(20.0).await;
                drop((inventory, deploy));
            }
        };
        self.add("release", "stock@batch-1:902", chain);
        let inventory = Part { lock: "inventory", note: "price update", holds: 12.0, pauses: 1.0 };
        self.turns("release", "prices@batch-3:17", 1.2, inventory);
        self.turns("release", "labels@batch-4:18", 1.4, Part { note: "labels", ..inventory });
        for (shop, after) in ["web-1", "web-2", "web-3"].into_iter().zip([0.0, 0.3, 0.6]) {
            let order = Part { lock: "orders/42", note: "checkout", holds: 1.6, pauses: 0.4 };
            self.turns("shop", &format!("shop@{shop}:310"), after, order);
        }
        for gpu in 1..=6 {
            self.add(
                "data",
                &format!("train-{gpu} mia@gpu-{gpu}:55"),
                async move |client: Client| {
                    let gpus = client.semaphore("gpu", 4);
                    pause(f64::from(gpu) / 5.0).await;
                    loop {
                        let guard = gpus.acquire().note(format!("model {gpu}")).await?;
                        hold(guard, 14.0 + f64::from(gpu)).await;
                        pause(1.0).await;
                    }
                },
            );
        }
        self.readers();
        self.deadlock();
        self.stuck();
        self.pairs();
    }

    /// Two read at the same time, and one wants to write.
    fn readers(&mut self) {
        for reader in ["board", "audit"] {
            self.add("data", &format!("{reader}@etl-1:40"), async move |client: Client| {
                loop {
                    let guard = client.lock("report").shared().note(reader).await?;
                    hold(guard, 7.0).await;
                    pause(0.5).await;
                }
            });
        }
        let report = Part { lock: "report", note: "monthly report", holds: 3.0, pauses: 6.0 };
        self.turns("data", "totals@etl-2:41", 2.0, report);
    }

    /// Two that take two locks in opposite orders: one of them is told that it would wait for ever.
    fn deadlock(&mut self) {
        let sides =
            [("debit", "ledger/a", "ledger/b", 0.0), ("credit", "ledger/b", "ledger/a", 0.4)];
        for (side, first, second, after) in sides {
            self.add("ledger", &format!("{side} kim@books:12"), async move |client: Client| {
                pause(4.0).await;
                loop {
                    let owner = client.owner();
                    let one = owner.lock(first).note(side).await?;
                    pause(1.0 + after).await;
                    match owner.lock(second).note(side).await {
                        Ok(two) => hold(two, 2.0).await,
                        Err(Error::Rejected { .. }) => {}
                        Err(error) => return Err(error),
                    }
                    drop(one);
                    pause(18.0 - after).await;
                }
            });
        }
    }

    /// A lock that its holder never gives back, until an operator takes it away.
    fn stuck(&mut self) {
        self.add("data", "import@etl-3:66 (hangs)", async |client: Client| {
            loop {
                let guard = client.lock("import/customers").note("full import").await?;
                guard.lost().await;
                drop(guard);
                pause(12.0).await;
            }
        });
        let import = Part { lock: "import/customers", note: "delta", holds: 4.0, pauses: 8.0 };
        self.turns("data", "delta@etl-4:67", 1.0, import);
        let operator =
            Servers::from(self.server.as_str()).credential(self.stage.operator().clone());
        self.tasks.spawn(async move {
            let Ok(observer) = Observer::connect(operator).await else { return };
            loop {
                pause(40.0).await;
                let Ok(lock) = observer.lock("import/customers").await else { return };
                let holder = lock.and_then(|lock| lock.holders.into_iter().next());
                if let Some(holder) = holder.filter(|it| it.identity.contains("hangs")) {
                    // Somebody may have been quicker.
                    let _late = observer
                        .revoke_for(
                            "import/customers",
                            holder.token,
                            "the import hangs, ticket 4711",
                        )
                        .await;
                }
            }
        });
    }

    /// Some that never wait long, so that there is something to count.
    fn pairs(&mut self) {
        for number in 0..3 {
            self.add("load", &format!("worker-{number}@api:90"), async move |client: Client| {
                for round in 0_u64.. {
                    let guard = client.lock(format!("load/{number}/{}", round % 7)).await?;
                    pause(0.02).await;
                    guard.release().await?;
                    pause(0.03).await;
                }
                Ok(())
            });
        }
    }

    /// Two thousand that wait for a few hundred locks.
    fn crowd(&mut self) {
        let holder = async |client: Client| {
            let mut guards = Vec::new();
            for number in 0..CROWDED {
                guards.push(client.lock(format!("orders/{number}")).note("checkout").await?);
            }
            client.closed().await;
            drop(guards);
            Ok(())
        };
        self.add("shop", "shop@web-0:300", holder);
        let (clients, requests) = CROWD;
        for number in 0..clients {
            self.add("shop", &format!("shop@web-{number}:310"), async move |client: Client| {
                pause(1.0).await;
                let mut waiting = JoinSet::new();
                for request in 0..requests {
                    // Few wait for most of them, and many for the first.
                    let place = number * requests + request;
                    let lock = if place % 4 == 0 { 0 } else { place % CROWDED };
                    let request = client.lock(format!("orders/{lock}")).note("checkout");
                    waiting.spawn(async move { request.await.map(drop) });
                }
                while waiting.join_next().await.is_some() {}
                pending::<()>().await;
                Ok(())
            });
        }
        self.pairs();
    }
}

/// Holds for so many seconds, or until it is lost; then gives back what there is.
async fn hold(guard: LockGuard, secs: f64) {
    tokio::select! {
        () = pause(secs) => {}
        _ = guard.lost() => {}
    }
    // One that was lost is no more to be given back.
    let _gone = guard.release().await;
}

async fn pause(secs: f64) {
    sleep(Duration::from_secs_f64(secs)).await;
}
