//! The real `ctl` against a daemon that answers what the test tells it to.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tables;
