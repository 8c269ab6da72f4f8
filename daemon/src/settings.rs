//! The configuration as it is now, and reading it again while the daemon runs.
//!
//! Whoever needs it asks at the time, so that what was reloaded holds from the next request, and from the next load of a
//! model, on. A configuration that cannot be used changes nothing.

use crate::cli::RunArgs;
use crate::config::Config;
use crate::listen::{Guard, Tls};
use crate::logging::Level;
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Debug)]
pub(crate) struct Settings {
    args: RunArgs,
    level: Level,
    tls: Option<Arc<Tls>>,
    now: RwLock<(Arc<Config>, Arc<Guard>)>,
}

impl Settings {
    /// `args` are what `config` was loaded with.
    pub(crate) fn new(args: RunArgs, config: Config, level: Level) -> anyhow::Result<Self> {
        let guard = Guard::new(&config.http)?;
        let tls = config.http.tls.as_ref().map(Tls::load).transpose()?;
        Ok(Self { args, level, tls, now: RwLock::new((Arc::new(config), Arc::new(guard))) })
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Who is let in over TCP.
    pub(crate) fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// What clients over TCP are shown, where they come by TLS.
    pub(crate) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Reads the file, the keys and the certificate again. Answers which changed keys need a restart.
    pub(crate) fn reload(&self) -> anyhow::Result<Vec<&'static str>> {
        let (config, left) = self.config().changed_to(Config::load(&self.args)?);
        let guard = Guard::new(&config.http)?;
        let tls = self.tls.as_ref().map(|tls| Ok::<_, anyhow::Error>((tls, tls.read()?)));
        let tls = tls.transpose()?;
        // From here on nothing fails.
        self.level.set(&config.log)?;
        if let Some((tls, acceptor)) = tls {
            tls.show(acceptor);
        }
        *self.now.write().unwrap_or_else(PoisonError::into_inner) =
            (Arc::new(config), Arc::new(guard));
        Ok(left)
    }
}
