//! What a server reads besides its settings: the files for TLS, and the access file.
//!
//! They are read as a whole, at the start and again by SIGHUP, and nothing of them holds before all of them are
//! without a mistake. `coordinator config check` reads the same.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coordinator::access::{Access, Parsed};
use coordinator::server::Expires;
use coordinator::tls::{CertificateUse, Expiry, ReadTls, TlsError, TlsOptions};

use crate::cli::access;
use crate::cli::settings::Settings;
use crate::cli::text::errors::{Failure, shell_word};
use crate::cli::text::words;

/// What is said where there is no access file.
pub(super) const ANYBODY: &str = "open to anyone who reaches it";
/// A certificate that expires within so long is warned of.
const EXPIRY_WARNED_OF: Duration = Duration::from_secs(14 * 24 * 3600);
/// The same for a list of revoked certificates: many are good for a week, and replaced each day.
const LIST_WARNED_OF: Duration = Duration::from_secs(24 * 3600);
/// Rights of others than owner and group.
const OTHERS: u32 = 0o007;

/// All of it.
#[derive(Default)]
pub(super) struct Pieces {
    /// The files for TLS.
    pub(super) tls: Option<ReadTls>,
    /// The access file.
    pub(super) access: Option<Access>,
    /// What is no mistake, and probably not meant either.
    pub(super) doubts: Vec<String>,
}

/// A piece that cannot be used.
#[derive(Debug)]
pub(super) struct Flaw {
    /// Which.
    pub(super) piece: Piece,
    /// What is wrong with it.
    pub(super) failure: Failure,
}

/// A part of what a server runs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Flags, variables and the configuration file.
    Settings,
    /// The files for TLS.
    Certificates,
    /// The access file.
    Access,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settings => "settings",
            Self::Certificates => "certificates",
            Self::Access => "access file",
        })
    }
}

impl Pieces {
    /// Reads all that there is to be, and what is wrong with it.
    pub(super) fn read(settings: &Settings, now: SystemTime) -> (Self, Vec<Flaw>) {
        let (mut pieces, mut flaws) = (Self::default(), Vec::new());
        let flaw = |piece| move |failure| Flaw { piece, failure };
        if let Some(files) = settings.tls_files() {
            match ReadTls::read(&files).map_err(|why| unusable(&why)) {
                Ok(read) => {
                    let expiries = read.expiries().iter();
                    pieces.doubts.extend(expiries.filter_map(|it| expiring(it, now)));
                    pieces.doubts.extend(read.never_valid().iter().map(never_valid));
                    pieces.tls = Some(read);
                }
                Err(failure) => flaws.push(flaw(Piece::Certificates)(failure)),
            }
            pieces.doubts.extend(exposed(&files.key));
        }
        if let Some(file) = &settings.peer_ca
            && let Err(why) = TlsOptions::new().server_ca(file).check()
        {
            let failure = Failure::usage(format!("cannot trust the other members: {why}"))
                .hint("--peer-ca names a file in PEM, with the authorities of their certificates");
            flaws.push(flaw(Piece::Certificates)(failure));
        }
        if let Some(file) = &settings.access_file {
            let read = access::read(file)
                .and_then(|parsed| shown_safely(settings, &parsed.access).map(|()| parsed));
            match read {
                Ok(parsed) => pieces.add_access(settings, file, parsed),
                Err(failure) => flaws.push(flaw(Piece::Access)(failure)),
            }
        }
        (pieces, flaws)
    }

    /// The same, if nothing is wrong; else the first that is.
    pub(super) fn whole(settings: &Settings, now: SystemTime) -> Result<Self, Flaw> {
        let (pieces, flaws) = Self::read(settings, now);
        flaws.into_iter().next().map_or(Ok(pieces), Err)
    }

    fn add_access(&mut self, settings: &Settings, file: &Path, Parsed { access, doubts }: Parsed) {
        let shown = file.display();
        self.doubts.extend(doubts.iter().map(|doubt| format!("{shown}:{doubt}")));
        if access.knows_certificates() && settings.tls_client_ca.is_none() {
            self.doubts.push(format!(
                "{shown} names certificates, and without --tls-client-ca nobody is asked for one"
            ));
        }
        self.access = Some(access);
    }

    /// Whether the access file names nobody.
    pub(super) fn names_nobody(&self) -> bool {
        self.access.as_ref().is_some_and(Access::names_nobody)
    }

    /// When the certificates expire.
    pub(super) fn expires(&self) -> Expires {
        let mut expires = Expires::default();
        for Expiry { of, at, .. } in self.tls.iter().flat_map(ReadTls::expiries) {
            match of {
                CertificateUse::Server => expires.server = Some(*at),
                CertificateUse::ClientCa => expires.client_ca = Some(*at),
                CertificateUse::Crl => expires.crl = Some(*at),
            }
        }
        expires
    }

    /// To whom it is open, in a few words.
    pub(super) fn open_to(&self) -> String {
        let Some(access) = &self.access else { return ANYBODY.to_owned() };
        let names: BTreeSet<&str> = access.principals().iter().map(|it| it.name.as_str()).collect();
        let plural = if names.len() == 1 { "" } else { "s" };
        let others = if access.named("anyone").is_some() { "" } else { ", nobody else" };
        format!("open to {} principal{plural}{others}", names.len())
    }
}

/// Clients send no credential to other machines in clear, unless they are told to. Where they could not but do
/// so, the access file would lock everybody out.
fn shown_safely(settings: &Settings, access: &Access) -> Result<(), Failure> {
    let ports = settings.ports().into_iter().filter_map(|(key, address)| Some((key, address?)));
    let mut seen = ports.filter(|(_, address)| !address.ip().to_canonical().is_loopback());
    let Some((key, address)) = seen.next() else { return Ok(()) };
    if settings.tls_cert.is_some() || settings.credential_in_clear || !access.knows_credentials() {
        return Ok(());
    }
    let what = format!(
        "--access-file has credentials, and without TLS on --{key} {address} they would be readable on the wire"
    );
    Err(Failure::usage(what).hint(
        "set --tls-cert and --tls-key; or say --credential-in-clear if whoever is in between may have them",
    ))
}

/// What a certificate is, and what comes of it while it is not valid.
fn described(of: CertificateUse, file: &Path) -> (String, &'static str) {
    let file = file.display();
    match of {
        CertificateUse::Server => (format!("the certificate in {file}"), "no client accepts it"),
        CertificateUse::ClientCa => {
            (format!("an authority in {file}"), "no client of its is let in")
        }
        CertificateUse::Crl => {
            let what = format!("the list of revoked certificates in {file}");
            (what, "no client with a certificate is let in")
        }
    }
}

/// Warns of a certificate that no clock can make valid.
fn never_valid((of, file): &(CertificateUse, PathBuf)) -> String {
    let (file, now) = described(*of, file);
    format!("{file} ends before it begins: {now}; replace it and send SIGHUP")
}

/// Warns of a certificate that is not good yet, or not for much longer, or not at all any more.
fn expiring(Expiry { of, file, from, at }: &Expiry, now: SystemTime) -> Option<String> {
    let date = humantime::format_rfc3339_seconds(*at);
    let (file, then) = described(*of, file);
    if let Ok(left) = from.duration_since(now)
        && !left.is_zero()
    {
        let (left, date) = (words::length(left), humantime::format_rfc3339_seconds(*from));
        return Some(format!(
            "{file} begins in {left} ({date}): {then} before; replace it, or set the clock of this machine"
        ));
    }
    let warned_of = match of {
        CertificateUse::Server | CertificateUse::ClientCa => EXPIRY_WARNED_OF,
        CertificateUse::Crl => LIST_WARNED_OF,
    };
    match at.duration_since(now) {
        Err(past) => {
            let ago = words::length(past.duration());
            Some(format!("{file} expired {ago} ago ({date}): {then}; replace it and send SIGHUP"))
        }
        Ok(left) if left <= warned_of => {
            let left = words::length(left);
            Some(format!(
                "{file} expires in {left} ({date}): {then} then; replace it and send SIGHUP"
            ))
        }
        Ok(_) => None,
    }
}

/// Says so if others can read a key: who has it is this coordinator.
fn exposed(key: &Path) -> Option<String> {
    let mode = fs::metadata(key).map_or(0, |found| found.mode());
    let (shown, word) = (key.display(), shell_word(&key.to_string_lossy()));
    (mode & OTHERS != 0).then(|| {
        format!("others can read the key {shown} (mode {:o}): chmod 600 {word}", mode & 0o7777)
    })
}

/// What is wrong with the files for TLS.
fn unusable(why: &TlsError) -> Failure {
    Failure::usage(format!("cannot speak TLS: {why}"))
        .hint("--tls-cert, --tls-key, --tls-client-ca and --tls-crl name files in PEM")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(of: CertificateUse, days: i64) -> Option<String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let away = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
        let at = if days < 0 { now - away } else { now + away };
        let from = SystemTime::UNIX_EPOCH;
        expiring(&Expiry { of, file: "c.pem".into(), from, at }, now)
    }

    #[test]
    fn a_certificate_that_is_not_valid_yet_or_never_is_warned_of() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (of, day) = (CertificateUse::Server, Duration::from_secs(24 * 3600));
        let of_days = |before: u32, until: u32| {
            let (from, at) = (now + day * before, now + day * until);
            expiring(&Expiry { of, file: "c.pem".into(), from, at }, now)
        };
        assert_eq!(of_days(0, 90), None, "from this moment on");
        assert_eq!(
            of_days(3, 90).unwrap(),
            "the certificate in c.pem begins in 3d (2027-01-18T08:00:00Z): no client accepts it before; \
            replace it, or set the clock of this machine"
        );
        assert_eq!(
            never_valid(&(CertificateUse::ClientCa, "c.pem".into())),
            "an authority in c.pem ends before it begins: no client of its is let in; \
            replace it and send SIGHUP"
        );
    }

    #[test]
    fn a_certificate_is_warned_of_from_14_days_before_its_end() {
        assert_eq!(told(CertificateUse::Server, 15), None);
        assert_eq!(
            told(CertificateUse::Server, 14).unwrap(),
            "the certificate in c.pem expires in 14d (2027-01-29T08:00:00Z): no client accepts it then; \
            replace it and send SIGHUP"
        );
        assert_eq!(
            told(CertificateUse::ClientCa, -2).unwrap(),
            "an authority in c.pem expired 2d ago (2027-01-13T08:00:00Z): no client of its is let in; \
            replace it and send SIGHUP"
        );
        assert_eq!(told(CertificateUse::Crl, 2), None, "it is replaced each day");
        assert_eq!(
            told(CertificateUse::Crl, -2).unwrap(),
            "the list of revoked certificates in c.pem expired 2d ago (2027-01-13T08:00:00Z): no client with a \
            certificate is let in; replace it and send SIGHUP"
        );
    }
}
