//! Files with secrets.

use anyhow::bail;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The text of a file that others have no access to.
pub(super) fn read_secret(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o007 != 0 {
        let shown = path.display();
        bail!("everybody may use what is in `{shown}`\nhint: `chmod o= {shown}`");
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}
