//! What serves: the only coordinator, or one of several.

use std::net::SocketAddr;

use coordinator::server::{Candidate, Config, Looker, Server, ServerError, ServerHandle};

use super::{cannot_serve, state};
use crate::cli::settings::Settings;
use crate::cli::text::errors::Failure;

/// What serves.
pub(super) enum Serving {
    /// The only one.
    Alone(Box<Server>),
    /// One of a cluster.
    OfSeveral(Box<Candidate>),
}

impl Serving {
    pub(super) fn bind(config: &Config, settings: &Settings) -> Result<Self, Failure> {
        let bound = match settings.election()? {
            None => Server::bind(config).map(|server| Self::Alone(Box::new(server))),
            Some(election) => Candidate::bind(config, election)
                .map(|candidate| Self::OfSeveral(Box::new(candidate))),
        };
        bound.map_err(|error| cannot_serve(&error))
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Alone(server) => server.local_addr(),
            Self::OfSeveral(candidate) => candidate.local_addr(),
        }
    }

    pub(super) fn redis_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Alone(server) => server.redis_addr(),
            Self::OfSeveral(_) => None,
        }
    }

    pub(super) fn handle(&self) -> ServerHandle {
        match self {
            Self::Alone(server) => server.handle(),
            Self::OfSeveral(candidate) => candidate.handle(),
        }
    }

    pub(super) fn looker(&self) -> Looker {
        match self {
            Self::Alone(server) => server.looker(),
            Self::OfSeveral(candidate) => candidate.looker(),
        }
    }

    /// Where its state is, and which run it is.
    pub(super) fn whereabouts(&self, settings: &Settings) -> String {
        match self {
            Self::Alone(server) => format!("{}, epoch {}", state(settings), server.epoch()),
            Self::OfSeveral(_) => {
                let cluster = settings.cluster.as_ref().map(ToString::to_string);
                format!("state of the cluster {} in etcd", cluster.unwrap_or_default())
            }
        }
    }

    pub(super) async fn run(self) -> Result<(), ServerError> {
        match self {
            Self::Alone(server) => server.run().await,
            Self::OfSeveral(candidate) => candidate.run().await,
        }
    }
}
