//! What went wrong with a connection, in words that say what to do.

use std::io;

#[cfg(feature = "server")]
use rustls::CertRevocationListError as List;
use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error, InvalidMessage};

/// An error of a connection to a server, as its client is to read it.
#[cfg(feature = "client")]
pub(super) fn of_server(error: io::Error) -> io::Error {
    with_words(error, |why| match why {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: leave tls:// out".to_owned()
        }
        Error::InvalidCertificate(why) => format!("its certificate {}", flaw(why, "it")),
        Error::AlertReceived(alert) => match alert {
            Alert::CertificateRequired => {
                "it wants a certificate of its clients: name one, and its key".to_owned()
            }
            Alert::NoApplicationProtocol => "it is no lock port, and speaks TLS".to_owned(),
            Alert::ProtocolVersion => {
                "it does not speak TLS 1.3; if not at all, leave tls:// out".to_owned()
            }
            Alert::CertificateRevoked => refused("was revoked"),
            Alert::CertificateExpired => refused("has expired"),
            // This one is for one that only has the name of a trusted one.
            Alert::DecryptError => refused("is by an authority that it does not trust"),
            Alert::UnknownCA => refused(
                "is by an authority that it does not trust, or it cannot tell whether that was revoked",
            ),
            Alert::BadCertificate | Alert::CertificateUnknown | Alert::AccessDenied => {
                refused("does not do")
            }
            other => format!("it refused TLS ({other:?})"),
        },
        Error::PeerIncompatible(_) => "it does not speak TLS as we do: version 1.3".to_owned(),
        other => format!("TLS failed: {other}"),
    })
}

#[cfg(feature = "client")]
fn refused(why: &str) -> String {
    format!("it refused our certificate: that {why}")
}

/// An error of a connection to a client, as the server's operator is to read it.
#[cfg(feature = "server")]
pub(super) fn of_client(error: io::Error) -> io::Error {
    with_words(error, |why| match why {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the client does not speak TLS: it has to name the server with tls://".to_owned()
        }
        Error::NoCertificatesPresented => "the client shows no certificate".to_owned(),
        Error::InvalidCertificate(why) => {
            format!("the client's certificate {}", flaw(why, "the client"))
        }
        Error::AlertReceived(Alert::UnknownCA) => {
            "the client does not trust the authority of our certificate".to_owned()
        }
        Error::AlertReceived(Alert::BadCertificate) => {
            "the client does not accept our certificate: is it for the name that it connects to?"
                .to_owned()
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            "the client says that our certificate has expired".to_owned()
        }
        Error::AlertReceived(alert) => format!("the client refused TLS ({alert:?})"),
        Error::NoApplicationProtocol => "the client speaks something else over TLS".to_owned(),
        Error::PeerIncompatible(_) => "the client does not speak TLS 1.3".to_owned(),
        other => format!("TLS failed: {other}"),
    })
}

/// What is wrong with a list of revoked certificates.
#[cfg(feature = "server")]
pub(super) fn of_list(why: &List) -> String {
    match why {
        // Also of one of version 1, which has no number: such a one is openssl's, unless told otherwise.
        List::ParseError | List::UnsupportedCrlVersion | List::InvalidCrlNumber => {
            "it has to be of version 2, with a number; `openssl ca -gencrl` makes such with \
             crl_extensions = crl_ext in its configuration"
                .to_owned()
        }
        List::UnsupportedDeltaCrl => "it has only changes: give the whole list".to_owned(),
        other => format!("{other:?}"),
    }
}

/// An end without a farewell of TLS (`close_notify`) is an end as any other: every message has a length, and
/// no end without a Goodbye proves anything.
pub(super) fn or_end(read: io::Result<()>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        read => read,
    }
}

/// What is wrong with a certificate.
fn flaw(why: &Certificate, whose: &str) -> String {
    match why {
        Certificate::Expired | Certificate::ExpiredContext { .. } => "has expired".to_owned(),
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
            "is not valid yet: one of the clocks is wrong".to_owned()
        }
        Certificate::UnknownIssuer => "is by an authority that is not trusted here".to_owned(),
        Certificate::BadSignature => {
            "is not signed by the authority of that name which is trusted here".to_owned()
        }
        Certificate::Revoked => "was revoked".to_owned(),
        Certificate::UnknownRevocationStatus => {
            "is in no list that says whether it was revoked".to_owned()
        }
        Certificate::ExpiredRevocationList | Certificate::ExpiredRevocationListContext { .. } => {
            "cannot be looked up: the list of revoked certificates has expired, so replace that"
                .to_owned()
        }
        Certificate::NotValidForNameContext { expected, presented } => {
            let presented: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let presented = presented.join(", ");
            format!("is not for {}: it is for {presented}", expected.to_str())
        }
        Certificate::NotValidForName => "is for another name".to_owned(),
        Certificate::InvalidPurpose | Certificate::InvalidPurposeContext { .. } => {
            format!("is not for what {whose} does with it")
        }
        other => format!("is not accepted: {other}"),
    }
}

/// A name as a certificate has it, without what kind of name it is: `DnsName("localhost")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// Whether an error is one of TLS.
#[cfg(feature = "server")]
pub(crate) fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Worded>)
}

/// The same error, in words, if it is one of TLS. Its kind stays, and what it was can be had of it.
fn with_words(error: io::Error, words: impl FnOnce(&Error) -> String) -> io::Error {
    let why = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match why {
        Some(why) => {
            io::Error::new(error.kind(), Worded { words: words(why), source: why.clone() })
        }
        None => error,
    }
}

/// An error of TLS, with words for people.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
struct Worded {
    /// What to do about it.
    words: String,
    /// What it was.
    source: Error,
}
