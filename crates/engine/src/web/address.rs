//! Addresses that anybody's page may make this program ask.
//!
//! A page could name `http://169.254.169.254/` as its picture, and a name of anybody's may point to an
//! address inside of our own network. Names are therefore judged by the addresses that they lead to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// Whether an address is one of the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (b == 18 || b == 19))
                || (a == 192 && b == 0))
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let embedded = v6.to_ipv4_mapped().or_else(|| match first {
                0x2002 => Some(Ipv4Addr::from(
                    (u32::from(second) << 16) | u32::from(v6.segments()[2]),
                )),
                _ => None,
            });
            match embedded {
                Some(v4) => is_public(v4.into()),
                None => {
                    // Only 2000::/3 is given to the public.
                    first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0x0db8)
                }
            }
        }
    }
}

/// Looks a name up and keeps its public addresses.
pub(super) fn public_only(name: &str) -> std::io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = name
        .to_socket_addrs()?
        .filter(|a| is_public(a.ip()))
        .collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(std::io::Error::other(
            "its address is private; `web.private_addresses` would allow it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_told_apart() {
        for public in ["198.35.26.96", "2620:0:862:ed1a::1", "8.8.8.8"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "192.168.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fc00::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        assert!(public_only("127.0.0.1:80").is_err());
    }
}
