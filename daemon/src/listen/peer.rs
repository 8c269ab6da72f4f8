//! Whose process is at the other end of a TCP connection within this machine: the kernel knows the owner of every socket,
//! and `sock_diag(7)` tells.

use super::Caller;
use std::net::SocketAddr;

/// `None` where the kernel does not say, as when that socket is closed already.
#[cfg(target_os = "linux")]
pub(super) fn owner(peer: SocketAddr, own: SocketAddr) -> Option<Caller> {
    linux::uid(peer, own).ok().flatten().map(Caller::user)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn owner(_: SocketAddr, _: SocketAddr) -> Option<Caller> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::io::Errno;
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
        socket_with,
    };
    use std::net::{IpAddr, SocketAddr};

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    /// A header, and a struct inet_diag_req_v2.
    const REQUEST: usize = 16 + 56;
    /// Where in an answer the user stands: a header, and a struct inet_diag_msg up to `idiag_uid`.
    const UID: usize = 16 + 64;

    /// The owner of the socket that is bound to `peer` and connected to `own`.
    pub(super) fn uid(peer: SocketAddr, own: SocketAddr) -> Result<Option<u32>, Errno> {
        let flags = SocketFlags::CLOEXEC;
        let family = AddressFamily::NETLINK;
        let socket = socket_with(family, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
        send(&socket, &request(peer, own), SendFlags::empty())?;
        let mut answer = [0_u8; 512];
        let (_, n) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        let uid = answer[..n].get(UID..UID + 4).and_then(|bytes| bytes.try_into().ok());
        Ok(uid.filter(|_| kind == SOCK_DIAG_BY_FAMILY).map(u32::from_ne_bytes))
    }

    fn request(peer: SocketAddr, own: SocketAddr) -> Vec<u8> {
        let (peer, own) = (canonical(peer), canonical(own));
        let mut bytes = Vec::with_capacity(REQUEST);
        // struct nlmsghdr
        bytes.extend(u32::try_from(REQUEST).unwrap_or_default().to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend(NLM_F_REQUEST.to_ne_bytes());
        bytes.extend([0; 8]);
        // struct inet_diag_req_v2
        let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let tcp = 6;
        bytes.extend([u8::try_from(family.as_raw()).unwrap_or_default(), tcp, 0, 0]);
        bytes.extend(u32::MAX.to_ne_bytes());
        bytes.extend(peer.port().to_be_bytes());
        bytes.extend(own.port().to_be_bytes());
        for address in [peer.ip(), own.ip()] {
            match address {
                IpAddr::V4(address) => {
                    bytes.extend(address.octets());
                    bytes.extend([0; 12]);
                }
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        // Any interface, and whatever its cookie.
        bytes.extend([0; 4]);
        bytes.extend([0xff; 8]);
        bytes
    }

    /// The kernel keeps an IPv4 connection as one, also where a socket for IPv6 took it.
    fn canonical(address: SocketAddr) -> SocketAddr {
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_names_the_user_at_the_other_end_of_a_local_connection() {
        let me = rustix::process::geteuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let to = if address == "[::1]:0" { "::1" } else { "127.0.0.1" };
            let client = TcpStream::connect((to, port)).unwrap();
            let (ours, peer) = listener.accept().unwrap();
            let own = ours.local_addr().unwrap();
            assert_eq!(owner(peer, own), Some(Caller::user(me)), "{address}");
            drop(client);
        }
    }

    #[test]
    fn of_a_connection_that_does_not_exist_it_says_nothing() {
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(owner(nobody, nobody), None);
    }
}
