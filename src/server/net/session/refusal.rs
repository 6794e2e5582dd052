//! The answer to a peer that took the lock port for another, in the protocol that it spoke.

use std::net::SocketAddr;

/// First bytes of HTTP requests.
const HTTP_METHODS: [&[u8; 4]; 9] =
    [b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"PRI "];
/// First bytes of a TLS handshake: a record of type 22, of version 3.something.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];
/// A TLS alert: fatal, `protocol_version`. What a client makes of it is nearest to the truth.
const TLS_ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x46];

/// The answer to a peer whose first four bytes were taken for the length `claimed`, if they are of a
/// protocol that we know. `address` is where we listen, for connections of that scheme.
pub(in crate::server) fn of(claimed: u32, scheme: &str, address: SocketAddr) -> Option<Vec<u8>> {
    let first = claimed.to_le_bytes();
    if HTTP_METHODS.contains(&&first) {
        let body = format!(
            "{address} is the lock port of a coordinator. It does not speak HTTP; \
             try `coordinator status --server {scheme}{address}`.\n"
        );
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        return Some(answer.into_bytes());
    }
    first.starts_with(&TLS_HANDSHAKE).then(|| TLS_ALERT.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HELLO_LEN_MAX;

    fn answer(first: [u8; 4]) -> Option<Vec<u8>> {
        answer_by("", first)
    }

    fn answer_by(scheme: &str, first: [u8; 4]) -> Option<Vec<u8>> {
        of(u32::from_le_bytes(first), scheme, SocketAddr::from(([127, 0, 0, 1], 5625)))
    }

    #[test]
    fn every_method_is_longer_than_a_hello_may_be() {
        for method in HTTP_METHODS {
            assert!(u32::from_le_bytes(*method) as usize > HELLO_LEN_MAX);
        }
    }

    #[test]
    fn a_browser_is_told_where_it_is() {
        let answer = String::from_utf8(answer(*b"GET ").unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
        assert!(body.contains("--server 127.0.0.1:5625"), "{answer}");
        let answer = String::from_utf8(answer_by("tls://", *b"GET ").unwrap()).unwrap();
        assert!(answer.contains("--server tls://127.0.0.1:5625"), "{answer}");
    }

    #[test]
    fn a_tls_client_gets_an_alert() {
        assert_eq!(answer([0x16, 0x03, 0x01, 0x02]).unwrap(), TLS_ALERT);
    }

    #[test]
    fn what_nobody_knows_is_not_answered_here() {
        assert_eq!(answer([0xff; 4]), None);
    }
}
