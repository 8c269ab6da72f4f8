//! Who is at the other end, as the kernel says.

use std::io;
use tokio::net::UnixStream;

/// A user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    gid: u32,
}

/// What no group has.
const NO_GID: u32 = u32::MAX;

impl Caller {
    /// Of whom nothing is known: by tradition the number of `nobody`.
    pub(super) const NOBODY: Self = Self { uid: 65534, gid: NO_GID };

    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid() })
    }

    pub(super) fn user(uid: u32) -> Self {
        Self { uid, gid: NO_GID }
    }

    /// Root, the daemon's own user, or a member of the group.
    pub(crate) async fn is_admin(self, group: &str) -> bool {
        if self.uid == 0 || self.uid == rustix::process::geteuid().as_raw() {
            return true;
        }
        let group = group.to_string();
        // The user database may be on the network.
        tokio::task::spawn_blocking(move || self.is_member(&group)).await.unwrap_or(false)
    }

    fn is_member(self, group: &str) -> bool {
        let Ok(Some(group)) = nix::unistd::Group::from_name(group) else { return false };
        if group.gid.as_raw() == self.gid {
            return true;
        }
        match nix::unistd::User::from_uid(self.uid.into()) {
            Ok(Some(user)) => user.gid == group.gid || group.mem.contains(&user.name),
            _ => false,
        }
    }
}
