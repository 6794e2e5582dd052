//! What is set of a cluster: which, who takes part, and where etcd is.

use std::path::Path;
use std::time::Duration;

use coordinator::cluster::Timing;
use coordinator::election::{Author, ClusterName, ElectionOptions};
use coordinator::etcd::{Believed, ETCD_ENDPOINTS_MAX, EtcdOptions, Password};
use coordinator::types::ServerAddress;

use super::values::{Value, duration};
use super::{Settings, files};
use crate::cli::text::errors::{Failure, reason};

/// The shortest lease of a leader: etcd itself needs more than a second for a leader of its own.
const LEADER_LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest: nobody leads for as long when a leader has died.
const LEADER_LEASE_MAX: Duration = Duration::from_secs(30);
/// What an endpoint of etcd has for an answer: an eighth of the lease, and between these.
const PATIENCE: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(500)];
/// The same for a command, which asks once.
const COMMAND_PATIENCE: Duration = Duration::from_secs(3);
/// The name of a member has so many bytes at most.
const MEMBER_NAME_LEN_MAX: usize = 64;

impl Value for ClusterName {
    fn parse(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|_| {
            "not the name of a cluster; expected 1 to 64 small letters, digits and hyphens"
                .to_owned()
        })
    }
}

/// The name of a member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberName(pub(crate) String);

impl Value for MemberName {
    fn parse(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        // A directory has its name.
        let is_directory = text == "." || text == "..";
        let is_name = text.bytes().all(is_plain) && !is_directory;
        if (1..=MEMBER_NAME_LEN_MAX).contains(&text.len()) && is_name {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "not a name; expected 1 to {MEMBER_NAME_LEN_MAX} letters, digits, dots, hyphens and underscores"
        ))
    }
}

impl Value for ServerAddress {
    fn parse(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|why| format!("not an address for clients: {why}"))
    }
}

/// The endpoints of etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints(pub(crate) Vec<String>);

impl Value for Endpoints {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let urls: Vec<String> =
            text.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
        if urls.len() > ETCD_ENDPOINTS_MAX {
            return Err(format!("{} endpoints; at most {ETCD_ENDPOINTS_MAX} are used", urls.len()));
        }
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        match urls.iter().find(|url| !is_url(url)) {
            Some(other) => Err(format!("{other:?} is no URL; expected https://HOST:2379")),
            None => Ok(Self(urls)),
        }
    }
}

/// How long a leader decides without a word of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaderLease(pub(crate) Duration);

impl Value for LeaderLease {
    fn parse(text: &str) -> Result<Self, String> {
        match duration(text) {
            Some(lease) if (LEADER_LEASE_MIN..=LEADER_LEASE_MAX).contains(&lease) => {
                Ok(Self(lease))
            }
            Some(_) => Err("must be between 1s and 30s".to_owned()),
            None => Err("not a duration; expected 2s".to_owned()),
        }
    }
}

impl Settings {
    /// Whether this coordinator is one of several.
    pub(crate) fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// As what it takes part in its cluster; none: it is alone.
    pub(crate) fn election(&self) -> Result<Option<ElectionOptions>, Failure> {
        let Some(cluster) = self.cluster.clone() else { return Ok(None) };
        let address = match &self.advertise {
            Some(address) => address.to_string(),
            None => self.listen.to_string(),
        };
        let name = self.member_name.as_ref().map_or_else(|| address.clone(), |it| it.0.clone());
        let timing = Timing { lease: self.leader_lease.0, ..Timing::default() };
        let author = Author { name, address, peer: String::new() };
        let patience = (self.leader_lease.0 / 8).clamp(PATIENCE[0], PATIENCE[1]);
        let etcd = EtcdOptions { patience, ..self.arbiter()? };
        let peers = self.peer_listen;
        Ok(Some(ElectionOptions { cluster, author, etcd, timing, kept: None, peers }))
    }

    /// Where etcd is, and who asks: a command, with its patience.
    pub(crate) fn arbiter(&self) -> Result<EtcdOptions, Failure> {
        let identity = self.etcd_cert.as_deref().zip(self.etcd_key.as_deref());
        let identity = identity.map(|(certificate, key)| {
            Ok::<_, Failure>((bytes_of("etcd-cert", certificate)?, bytes_of("etcd-key", key)?))
        });
        let user = self.etcd_user.clone().zip(self.etcd_password_file.as_deref());
        let user = user.map(|(name, file)| {
            let content = bytes_of("etcd-password-file", file)?;
            Ok::<_, Failure>((name, Password::new(file.to_owned(), &content)))
        });
        Ok(EtcdOptions {
            endpoints: self.etcd.0.clone(),
            ca: self.etcd_ca.as_deref().map(|file| bytes_of("etcd-ca", file)).transpose()?,
            identity: identity.transpose()?,
            user: user.transpose()?,
            patience: COMMAND_PATIENCE,
            believed: Believed::default(),
        })
    }
}

fn bytes_of(key: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    files::read(file).map_err(|error| {
        let what = format!("cannot read --{key} {} ({})", file.display(), reason(&error));
        Failure::usage(what).hint("it names a file that this user can read")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_lease_is_between_a_second_and_half_a_minute() {
        for (text, is_one) in [("999ms", false), ("1s", true), ("30s", true), ("30001ms", false)] {
            assert_eq!(LeaderLease::parse(text).is_ok(), is_one, "{text}");
        }
    }

    #[test]
    fn endpoints_are_urls_with_commas_between() {
        let parse = |text| Endpoints::parse(text).map(|it| it.0);
        assert_eq!(parse("").unwrap(), [""; 0]);
        assert_eq!(parse("http://a:1, https://b:2/").unwrap(), ["http://a:1", "https://b:2"]);
        for bad in ["a:2379", "http://a:1,", "ftp://a:1"] {
            assert!(parse(bad).unwrap_err().contains("is no URL"), "{bad}");
        }
        let many = vec!["http://a:1"; ETCD_ENDPOINTS_MAX + 1];
        let (many, most) = (many.join(","), many[1..].join(","));
        assert!(parse(&many).is_err() && parse(&most).is_ok());
    }

    #[test]
    fn the_name_of_a_member_is_short_and_plain() {
        let longest = "a".repeat(MEMBER_NAME_LEN_MAX);
        for name in ["a", "10.0.0.7:5625", "[::1]:5625", &longest] {
            assert!(MemberName::parse(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "\u{1b}", &format!("{longest}a")] {
            assert!(MemberName::parse(name).is_err(), "{name:?}");
        }
    }
}
