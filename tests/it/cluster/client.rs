//! The client of etcd, with a real one.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coordinator::etcd::{
    ETCD_ENDPOINTS_MAX, Etcd as Client, EtcdError, EtcdOptions, Password, Reading, Swap,
};
use rustix::process::Signal;

use super::etcd::Etcd;
use super::{live, options};
use crate::certificates::Authority;
use crate::free_port::free_port;

const KEY: &str = "/coordinator/test/seat";

/// Puts a first value; its revision.
async fn put_first(client: &Client) -> u64 {
    loop {
        match client.swap(KEY, 0, b"first".to_vec()).await {
            Ok(Swap::Done { revision, .. }) => return revision,
            // It was done, and its answer came too late.
            Ok(Swap::Refused(Reading { found: Some(found), .. })) if found.value == b"first" => {
                return found.revision;
            }
            // An etcd that has just been started, on a busy machine.
            Err(EtcdError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What comes of a call once somebody answers it in time.
async fn answered<T>(mut call: impl AsyncFnMut() -> Result<T, EtcdError>) -> Result<T, EtcdError> {
    loop {
        match call().await {
            Err(EtcdError::Unavailable(_)) => {}
            outcome => return outcome,
        }
    }
}

#[test]
fn a_value_is_put_in_place_of_the_one_that_was_read_and_of_no_other() {
    let etcd = Etcd::start();
    live(async {
        let client = Client::new(options(&[&etcd.url()])).unwrap();
        let nothing = client.read(KEY).await.unwrap();
        assert_eq!(nothing.found, None);
        let first = put_first(&client).await;
        // The same once more, as if its answer had been lost.
        let again = client.swap(KEY, 0, b"first".to_vec()).await.unwrap();
        let Swap::Refused(reading) = again else { panic!("{again:?}") };
        let found = reading.found.unwrap();
        assert_eq!((found.revision, &found.value[..]), (first, &b"first"[..]));
        assert_eq!(reading.cluster, nothing.cluster);
        let second = client.swap(KEY, first, b"second".to_vec()).await.unwrap();
        let Swap::Done { revision, cluster } = second else { panic!("{second:?}") };
        assert!(revision > first && cluster == nothing.cluster);
        assert_eq!(client.read(KEY).await.unwrap().found.unwrap().value, b"second");
    });
}

#[test]
fn keys_below_a_prefix_are_listed_and_no_others() {
    let etcd = Etcd::start();
    live(async {
        let client = Client::new(options(&[&etcd.url()])).unwrap();
        for name in ["/a/members/x", "/a/members/y", "/a/members0", "/a/other"] {
            client.put(name, name.into()).await.unwrap();
        }
        let list = client.list("/a/members/").await.unwrap();
        let names: Vec<_> = list.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["/a/members/x", "/a/members/y"]);
        assert_eq!(list[1].1.value, b"/a/members/y");
    });
}

#[test]
fn an_endpoint_that_is_dead_from_the_start_or_hangs_is_passed_over() {
    let etcd = Etcd::start();
    // It takes connections, by its backlog, and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let dead = format!("http://127.0.0.1:{}", free_port());
    live(async {
        let client = Client::new(EtcdOptions {
            patience: Duration::from_millis(300),
            ..options(&[&dead, &silent, &etcd.url()])
        });
        put_first(&client.unwrap()).await;
    });
}

#[test]
fn what_was_tried_is_told_if_no_endpoint_answers() {
    let (one, other) = (free_port(), free_port());
    let urls = [one, other].map(|port| format!("http://127.0.0.1:{port}"));
    live(async {
        let client = Client::new(options(&[&urls[0], &urls[1]])).unwrap();
        let error = client.read(KEY).await.unwrap_err().to_string();
        assert!(error.starts_with("no etcd has answered: http://127.0.0.1:"), "{error}");
        for url in &urls {
            assert!(error.contains(&format!("{url}: Connection refused")), "{error}");
        }
    });
}

#[test]
fn an_etcd_that_was_restarted_is_reached_again() {
    let mut etcd = Etcd::start();
    live(async {
        let client = Client::new(options(&[&etcd.url()])).unwrap();
        let first = put_first(&client).await;
        etcd.kill();
        etcd.revive();
        let found = loop {
            // The connection has yet to notice.
            if let Ok(reading) = client.read(KEY).await {
                break reading.found.unwrap();
            }
        };
        assert_eq!(found.revision, first);
    });
}

#[test]
fn h8_an_endpoint_of_another_etcd_is_passed_over_and_asked_for_nothing_that_changes_something() {
    let (etcd, stranger) = (Etcd::start(), Etcd::start());
    let patience = Duration::from_millis(500);
    let patient = options(&[&stranger.url(), &etcd.url()]);
    let both = EtcdOptions { patience, ..patient.clone() };
    let own = EtcdOptions { endpoints: vec![etcd.url()], ..both.clone() };
    live(async {
        let first = put_first(&Client::new(own).unwrap()).await;
        let client = Client::new(both).unwrap();
        let found = answered(async || client.read(KEY).await).await.unwrap().found.unwrap();
        assert_eq!(found.revision, first);
        etcd.signal(Signal::STOP);
        for done in [
            answered(async || client.swap(KEY, 0, b"mine".to_vec()).await.map(drop)).await,
            answered(async || client.put(KEY, b"mine".to_vec()).await).await,
            answered(async || client.read(KEY).await.map(drop)).await,
        ] {
            assert!(matches!(done, Err(EtcdError::Other { .. })), "{done:?}");
        }
        let there = answered(async || client.read_anybodys(KEY).await).await.unwrap();
        assert_eq!(
            (there.found, Some(there.cluster) == client.believed().cluster()),
            (None, false)
        );
        etcd.signal(Signal::CONT);
        let client = Client::new(patient).unwrap();
        while client.read(KEY).await.is_err() {}
        let done = client.swap(KEY, first, b"second".to_vec()).await;
        assert!(matches!(done, Ok(Swap::Done { .. })), "{done:?}");
    });
}

#[test]
fn h8_whoever_asks_endpoints_of_several_etcds_believes_what_more_than_half_of_them_are_of() {
    let (three, stranger) = (Etcd::start_three(), Etcd::start());
    let urls: Vec<String> = three.iter().chain([&stranger]).map(Etcd::url).collect();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let agree = |urls: &[&str]| {
        live(async {
            let client = Client::new(options(urls)).unwrap();
            (client.agree().await, client.believed().cluster())
        })
    };
    let (agreed, believed) = agree(&[&urls[3], &urls[0], &urls[1]]);
    let strangers = agreed.unwrap();
    assert_eq!(strangers.len(), 1);
    assert!(strangers[0].0 == urls[3] && Some(strangers[0].1) != believed);
    for order in [[0, 3], [3, 0]] {
        let (agreed, believed) = agree(&order.map(|it| urls[it].as_str()));
        assert!(matches!(agreed, Err(EtcdError::Several(_))), "{agreed:?}");
        assert_eq!(believed, None);
    }
    let (agreed, believed) = agree(&[&urls[0], &dead]);
    assert!(matches!(agreed, Err(EtcdError::TooFew { answered: 1, count: 2, .. })), "{agreed:?}");
    assert_eq!(believed, None);
}

/// An etcd with the user `root`, whose password is `secret`.
pub(super) fn with_user() -> Etcd {
    with_user_for(Duration::from_secs(300))
}

/// The user of that name, with such a password.
fn root(password: &str) -> (String, Password) {
    ("root".to_owned(), Password::new(PathBuf::new(), password.as_bytes()))
}

/// The same, whose tokens are good for so long after they were shown last.
pub(super) fn with_user_for(ttl: Duration) -> Etcd {
    let etcd = Etcd::start_with_tokens(ttl);
    etcd.post("/v3/auth/user/add", r#"{"name": "root", "password": "secret"}"#);
    etcd.post("/v3/auth/role/add", r#"{"name": "root"}"#);
    etcd.post("/v3/auth/user/grant", r#"{"user": "root", "role": "root"}"#);
    etcd.post("/v3/auth/enable", "{}");
    etcd
}

#[test]
fn a_user_proves_itself_by_its_password_and_again_when_etcd_has_forgotten_that() {
    let mut etcd = with_user();
    live(async {
        let user = Some(root("secret"));
        let client = Client::new(EtcdOptions { user, ..options(&[&etcd.url()]) }).unwrap();
        put_first(&client).await;
        // Its tokens are in memory.
        etcd.kill();
        etcd.revive();
        while client.read(KEY).await.is_err_and(|it| matches!(it, EtcdError::Unavailable(_))) {}
        assert!(client.read(KEY).await.unwrap().found.is_some());
    });
}

#[test]
fn a_token_that_has_expired_is_renewed() {
    let etcd = with_user_for(Duration::from_secs(1));
    live(async {
        let user = Some(root("secret"));
        let [client, observer] =
            [(); 2].map(|()| EtcdOptions { user: user.clone(), ..options(&[&etcd.url()]) });
        let client = Client::new(client).unwrap();
        put_first(&client).await;
        // Longer than its token lives, and than etcd takes to look after tokens.
        let observer = Client::new(observer).unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            assert!(observer.read(KEY).await.unwrap().found.is_some());
        }
        assert!(client.read(KEY).await.unwrap().found.is_some());
    });
}

#[test]
fn who_has_no_password_or_a_wrong_one_is_told_what_etcd_wants() {
    let etcd = with_user();
    live(async {
        let client = Client::new(options(&[&etcd.url()])).unwrap();
        let error = client.read(KEY).await.unwrap_err().to_string();
        assert!(
            error.ends_with("it wants a user and a password, or a client certificate"),
            "{error}"
        );
        let user = Some(root("wrong"));
        let client = Client::new(EtcdOptions { user, ..options(&[&etcd.url()]) }).unwrap();
        let error = client.read(KEY).await.unwrap_err().to_string();
        assert!(error.contains("refused") && error.ends_with("is the password right?"), "{error}");
    });
}

#[test]
fn etcd_and_its_client_prove_themselves_by_certificates() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    let authority = Authority::new(&path("ca.pem"));
    authority.issue(&["127.0.0.1", "localhost"], &path("etcd.pem"), &path("etcd.key"));
    authority.issue(&["coordinator"], &path("client.pem"), &path("client.key"));
    let etcd = Etcd::start_with_tls(&path("ca.pem"), &path("etcd.pem"), &path("etcd.key"));
    let read = |name| std::fs::read(path(name)).unwrap();
    let secure = EtcdOptions {
        ca: Some(read("ca.pem")),
        identity: Some((read("client.pem"), read("client.key"))),
        ..options(&[&etcd.url()])
    };
    live(async {
        put_first(&Client::new(secure.clone()).unwrap()).await;
        let nobody = EtcdOptions { identity: None, ..secure.clone() };
        let error = Client::new(nobody).unwrap().read(KEY).await.unwrap_err();
        assert!(matches!(error, EtcdError::Unavailable(_)), "{error}");
        let stranger = EtcdOptions { ca: None, ..secure };
        let error = Client::new(stranger).unwrap().read(KEY).await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    });
}

#[test]
fn addresses_that_are_none_are_refused_by_name() {
    live(async {
        for (url, why) in [
            ("localhost:2379", "it does not begin with http:// or https://"),
            ("ftp://localhost:2379", "it begins with neither http:// nor https://"),
            ("http://localhost", "it has no port"),
        ] {
            let error = Client::new(options(&[url])).unwrap_err().to_string();
            assert!(error.contains(url) && error.ends_with(why), "{error}");
        }
        let too_many = vec!["http://localhost:2379"; ETCD_ENDPOINTS_MAX + 1];
        assert!(Client::new(options(&too_many)).is_err() && Client::new(options(&[])).is_err());
        assert!(Client::new(options(&too_many[1..])).is_ok());
    });
}
