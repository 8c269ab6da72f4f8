//! What of a changed configuration a running daemon can take.

use super::Config;

impl Config {
    /// `wanted`, with what needs a restart left as it is here, and the keys of what was left.
    pub(crate) fn changed_to(&self, mut wanted: Self) -> (Self, Vec<&'static str>) {
        let mut left = Vec::new();
        macro_rules! needs_restart {
            ($($key:literal: $($field:ident).+;)*) => {$(
                if wanted.$($field).+ != self.$($field).+ {
                    left.push($key);
                    wanted.$($field).+.clone_from(&self.$($field).+);
                }
            )*};
        }
        needs_restart! {
            "socket": socket;
            "socket_mode": socket_mode;
            "models": models;
            "more_models": more_models;
            "max_request_bytes": max_request_bytes;
            "max_connections": max_connections;
            "pull": pull;
            "http.listen": http.listen;
            "http.tls_certificate, http.tls_key": http.tls;
        }
        (wanted, left)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settle;
    use crate::cli::RunArgs;

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let args = RunArgs { models: Some("/m".into()), ..RunArgs::default() };
        let settle = |text| settle(&args, text).unwrap();
        let old = settle("socket = \"/a\"\nkeep_alive = \"1m\"\n");
        let text = "socket = \"/b\"\nkeep_alive = \"2m\"\n[http]\nlisten = [\"[::1]:1\"]\nopen = true\n[pull]\nstreams = 1\n";
        let (new, left) = old.changed_to(settle(text));
        assert_eq!(left, ["socket", "pull", "http.listen"]);
        assert_eq!(
            (&new.socket, &new.pull, &new.http.listen),
            (&old.socket, &old.pull, &old.http.listen)
        );
        assert_ne!(new.keep_alive, old.keep_alive);
        assert!(new.http.open);
        assert_eq!(old.changed_to(old.clone()), (old.clone(), Vec::new()));
    }
}
