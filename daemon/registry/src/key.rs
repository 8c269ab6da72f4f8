//! The key that Ollama's registry knows a user by: made when it is needed first, and kept as Ollama keeps it, in OpenSSH's
//! format with the public part beside it.

use crate::error::PullError;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD as BASE64, BASE64_URL_SAFE_NO_PAD};
use reqwest::Url;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{LineEnding, PrivateKey};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// SHA-256 of a body of no bytes, in hex, in base64: what is signed in place of a request's body.
const NO_BODY: &str =
    "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ==";

/// An ed25519 key.
pub struct Key {
    pair: Ed25519KeyPair,
    /// As in a file of authorized keys.
    public: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let key = PrivateKey::from_openssh(text).map_err(|error| error.to_string())?;
        let Some(pair) = key.key_data().ed25519() else {
            return Err("it is encrypted, or no ed25519 key".to_owned());
        };
        let public = key.public_key().to_openssh().map_err(|error| error.to_string())?;
        let pair =
            Ed25519KeyPair::from_seed_and_public_key(pair.private.as_ref(), pair.public.as_ref())
                .map_err(|error| error.to_string())?;
        Ok(Self { pair, public })
    }

    /// The one in this file, made if there is none.
    pub(crate) fn at(path: &Path) -> Result<Self, PullError> {
        let failed = |reason: String| PullError::Key { path: path.to_owned(), reason };
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(|error| failed(error.to_string()))?;
                fs::read_to_string(path)
            }
            read => read,
        };
        Self::parse(&text.map_err(|error| failed(error.to_string()))?).map_err(failed)
    }

    /// As it is to be given to the registry's owner.
    pub(crate) fn public(&self) -> &str {
        &self.public
    }

    /// Adds to a URL what makes it one of a kind, and gives what proves that this key's owner asks for it.
    pub(crate) fn sign(&self, url: &mut Url) -> Option<String> {
        let mut nonce = [0; 16];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        url.query_pairs_mut()
            .append_pair("ts", &now.to_string())
            .append_pair("nonce", &BASE64_URL_SAFE_NO_PAD.encode(nonce));
        let signature = self.pair.sign(format!("GET,{url},{NO_BODY}").as_bytes());
        let public = self.public.split(' ').nth(1)?;
        Some(format!("{public}:{}", BASE64.encode(signature)))
    }
}

/// Of two that make it at once one is first, and both use that.
fn make(path: &Path) -> io::Result<()> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let public = pair.public_key().as_ref().try_into().map_err(io::Error::other)?;
    let pair = Ed25519Keypair {
        public: Ed25519PublicKey(public),
        private: Ed25519PrivateKey::from_bytes(&seed),
    };
    let key = PrivateKey::new(KeypairData::from(pair), "").map_err(io::Error::other)?;
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    // Readable by nobody else from the start.
    let mut temp = tempfile::NamedTempFile::new_in(dir)?;
    temp.write_all(text.as_bytes())?;
    temp.as_file().sync_all()?;
    match temp.persist_noclobber(path) {
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        persisted => persisted.map_err(|error| error.error)?,
    };
    let public = key.public_key().to_openssh().map_err(io::Error::other)?;
    fs::write(path.with_extension("pub"), format!("{public}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ED25519, UnparsedPublicKey};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/id_ed25519");
        let made = Key::at(&path).unwrap();
        assert!(made.public().starts_with("ssh-ed25519 AAAA"));
        assert_eq!(Key::at(&path).unwrap().public(), made.public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let public = fs::read_to_string(dir.path().join("new/id_ed25519.pub")).unwrap();
        assert_eq!(public.trim_end(), made.public());
    }

    #[test]
    fn what_is_no_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(Key::at(&path), Err(PullError::Key { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_signature_is_of_the_whole_url() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::at(&dir.path().join("id_ed25519")).unwrap();
        let mut url = Url::parse("https://h/v2/token?scope=a%3Ab").unwrap();
        let authorization = key.sign(&mut url).unwrap();
        assert!(url.query().unwrap().contains("&nonce="), "{url}");
        let (public, signature) = authorization.split_once(':').unwrap();
        // The last 32 bytes of the public part are the key itself.
        let public = BASE64.decode(public).unwrap();
        let verifier = UnparsedPublicKey::new(&ED25519, &public[public.len() - 32..]);
        let signature = BASE64.decode(signature).unwrap();
        verifier.verify(format!("GET,{url},{NO_BODY}").as_bytes(), &signature).unwrap();
        assert!(verifier.verify(b"GET", &signature).is_err());
    }
}
