//! The origin of a peer, as far as it bounds one peer's share.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address, or a range that one machine can take at will: its loopback, or an IPv6 network with
/// a prefix of 64 bits. Many machines may share one, behind a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// This machine, over loopback.
    Loopback,
    /// An address of IPv4.
    Address(Ipv4Addr),
    /// A network of IPv6: the first 64 bits.
    Network(u64),
}

impl Origin {
    /// Where `address` belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::Address(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments().map(u64::from);
                Self::Network(a << 48 | b << 32 | c << 16 | d)
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("this machine"),
            Self::Address(address) => address.fmt(f),
            Self::Network(prefix) => {
                write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*prefix) << 64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> String {
        Origin::of(address.parse().unwrap()).to_string()
    }

    #[test]
    fn what_one_machine_can_take_at_will_is_one_origin() {
        for loopback in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.2"] {
            assert_eq!(origin(loopback), "this machine");
        }
        assert_eq!(origin("10.0.0.7"), "10.0.0.7");
        assert_eq!(origin("::ffff:10.0.0.7"), "10.0.0.7");
        assert_ne!(origin("10.0.0.7"), origin("10.0.0.8"));
        assert_eq!(origin("2001:db8:0:1::7"), "2001:db8:0:1::/64");
        assert_eq!(origin("2001:db8:0:1:ffff::8"), "2001:db8:0:1::/64");
        assert_ne!(origin("2001:db8:0:2::7"), origin("2001:db8:0:1::7"));
    }
}
