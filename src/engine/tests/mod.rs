//! The engine's promises, each looked at from several sides.
//!
//! | place | is about |
//! |---|---|
//! | `stories` | situations, told as commands and effects in the text files of `../stories` |
//! | `random` | arbitrary commands: the invariants hold |
//! | `reference` | the same, beside rules that are as plain as can be |
//! | `exhaustive` | two or three clients, and everything that can happen, in every order |
//! | `bounds`, `costs`, `slices` | how much there can be, what it costs, and that it is done in slices |

mod bounds;
mod costs;
mod exhaustive;
mod random;
mod reference;
mod slices;
mod stories;

use std::error::Error;
use std::time::Duration;

use super::*;
use crate::types::*;

type Table = LockTable;
type Failure = Box<dyn Error>;

fn start(below: u64) -> Start {
    let ttl_max = Some(Ttl::new(Duration::from_secs(60)).unwrap());
    let tokens_below = FencingToken::new(below);
    let epoch = Epoch::new(1);
    let durable = Durable { epoch, tokens_below, ttl_max, settled: epoch };
    let past = Past { snapshot: Some(Snapshot::default()), ..Past::default() };
    Start { durable, first_token: FencingToken::new(1), plausible: plausible(), past }
}

/// The longest leases that there can be, for most stories have no use for a bound on them.
fn limits() -> Limits {
    Limits { ttl_max: Ttl::new(TTL_MAX).unwrap(), ..Limits::default() }
}

fn plausible() -> Durable {
    let (epoch, tokens_below) = (Epoch::new(1000), FencingToken::new(1 << 40));
    Durable { epoch, tokens_below, ttl_max: None, settled: Epoch::default() }
}

fn claim(name: &str, mode: Mode) -> Result<Claim, Failure> {
    Ok(Claim { name: LockName::new(name)?, mode })
}
