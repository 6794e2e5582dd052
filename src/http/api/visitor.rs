//! Visitors: who asks, and what that one shows to prove it.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

#[cfg(feature = "access")]
use crate::access::Digest;
use crate::access::Proof;
use crate::http::caller::Caller;
use crate::http::problem::Problem;
use crate::types::{CREDENTIAL_LEN, ShownCredential};

/// Who asks.
#[derive(Clone, Debug)]
pub(in crate::http) struct Visitor {
    /// The other end of the connection.
    pub(super) caller: Caller,
    /// The credential that it shows.
    pub(super) shown: Option<ShownCredential>,
}

impl Visitor {
    /// Where it comes from, if that is known.
    pub(in crate::http) fn address(&self) -> Option<IpAddr> {
        self.caller.peer.map(|peer| peer.ip())
    }

    /// What it has shown, as rules are asked with it.
    pub(super) fn proof(&self) -> Proof {
        #[cfg(feature = "access")]
        let credential = self.shown.as_ref().map(|shown| Digest::of(shown.reveal()));
        #[cfg(not(feature = "access"))]
        let credential = None;
        Proof { credential, certified: self.caller.certified.names() }
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_default();
        let mut said = parts.headers.get_all(AUTHORIZATION).iter();
        let (first, second) = (said.next(), said.next());
        let shown = match (first, second) {
            (None, _) => None,
            (Some(value), None) => {
                let text = value.to_str().ok().and_then(|text| text.split_once(' '));
                let shown = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                let (_, shown) = shown.ok_or_else(Problem::unreadable_credential)?;
                // What is longer is none, and is refused as any other that is wrong.
                let shown: String = shown.trim().chars().take(CREDENTIAL_LEN + 1).collect();
                Some(ShownCredential::new(shown))
            }
            (Some(_), Some(_)) => return Err(Problem::unreadable_credential()),
        };
        Ok(Self { caller, shown })
    }
}
