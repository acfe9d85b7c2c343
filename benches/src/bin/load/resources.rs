//! What many connections need of the system: descriptors and local addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::Failure;

/// Descriptors beside those of the connections: standard streams, one epoll per thread and so on.
const DESCRIPTORS_BESIDE: u64 = 64;
/// Connections from one address to one port: Linux has 28,232 local ports unless told otherwise.
const CONNECTIONS_PER_SOURCE: usize = 25_000;

/// Raises the limit of descriptors as far as needed.
pub(crate) fn descriptors(connections: usize, threads: usize) -> Result<(), Failure> {
    let needed = connections as u64 + threads as u64 + DESCRIPTORS_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    let raised = [limit.maximum, maximum].into_iter().any(|maximum| {
        maximum.is_none_or(|maximum| maximum >= needed)
            && setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).is_ok()
    });
    if raised {
        return Ok(());
    }
    Err(Failure::from(format!(
        "{connections} connections need {needed} descriptors and the limit is {}: start it after \
         ulimit -n {needed}",
        limit.maximum.unwrap_or(u64::MAX)
    )))
}

/// The addresses to connect from; none leaves the choice to the system.
pub(crate) fn sources(
    given: &[IpAddr],
    to: SocketAddr,
    connections: usize,
) -> Result<Vec<IpAddr>, Failure> {
    if let Some(other) = given.iter().find(|source| source.is_ipv4() != to.is_ipv4()) {
        return Err(Failure::usage(format!("{to} cannot be reached from {other}")));
    }
    let is_loopback = to.is_ipv4() && to.ip().is_loopback();
    if !given.is_empty() || !is_loopback || connections <= CONNECTIONS_PER_SOURCE {
        return Ok(given.to_vec());
    }
    let first = u32::from(Ipv4Addr::new(127, 0, 0, 2));
    let count = connections.div_ceil(CONNECTIONS_PER_SOURCE) as u32;
    Ok((first..first + count).map(|bits| Ipv4Addr::from(bits).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::sources;

    #[test]
    fn many_connections_come_from_several_addresses() {
        let loopback = "127.0.0.1:9001".parse().unwrap();
        assert!(sources(&[], loopback, 25_000).unwrap().is_empty());
        let two: Vec<std::net::IpAddr> =
            vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
        assert_eq!(sources(&[], loopback, 50_000).unwrap(), two);
        assert!(sources(&[], "10.0.0.1:9001".parse().unwrap(), 50_000).unwrap().is_empty());
        assert_eq!(sources(&two, loopback, 1).unwrap(), two);
        assert!(sources(&two, "[::1]:1".parse().unwrap(), 1).is_err());
    }
}
