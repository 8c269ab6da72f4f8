//! What tells one build of a shared library from another: its GNU build id, or else a hash of its bytes.
//!
//! The build id survives stripping, which packagers do. Files without one (Mach-O, or ELF linked without
//! `--build-id`) are hashed. Used by `build.rs` to record the modules of this build and by `modules` to check
//! them, so this file knows nothing of the rest of the crate.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

/// The id of a file, such as `79d6220f…` or `fnv:…`.
pub(crate) fn of_file(path: &Path) -> io::Result<String> {
    // Notes stand right behind the program headers, so the first page holds them in every file of ours.
    let mut head = Vec::new();
    File::open(path)?.take(16 * 1024).read_to_end(&mut head)?;
    if let Some(id) = gnu_build_id(&head) {
        return Ok(id.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    Ok(format!("fnv:{:016x}", fnv1a(&std::fs::read(path)?)))
}

/// FNV-1a, 64 bits. Tells builds and damaged bytes apart; it is no defence against an attacker.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The descriptor of the first NT_GNU_BUILD_ID note of a little-endian 64-bit ELF file.
fn gnu_build_id(head: &[u8]) -> Option<&[u8]> {
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(array(head, 0x20)?)).ok()?;
    let entry_size = usize::from(u16::from_le_bytes(array(head, 0x36)?));
    let count = usize::from(u16::from_le_bytes(array(head, 0x38)?));
    (0..count).find_map(|index| {
        let entry = head.get(table.checked_add(index * entry_size)?..)?;
        if u32::from_le_bytes(array(entry, 0)?) != PT_NOTE {
            return None;
        }
        let offset = usize::try_from(u64::from_le_bytes(array(entry, 0x08)?)).ok()?;
        let len = usize::try_from(u64::from_le_bytes(array(entry, 0x20)?)).ok()?;
        note(head.get(offset..offset.checked_add(len)?)?)
    })
}

fn note(mut notes: &[u8]) -> Option<&[u8]> {
    loop {
        let name_len = usize::try_from(u32::from_le_bytes(array(notes, 0)?)).ok()?;
        let desc_len = usize::try_from(u32::from_le_bytes(array(notes, 4)?)).ok()?;
        let kind = u32::from_le_bytes(array(notes, 8)?);
        let desc_at = 12 + name_len.checked_next_multiple_of(4)?;
        let desc = notes.get(desc_at..desc_at.checked_add(desc_len)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" {
            return Some(desc);
        }
        notes = notes.get(desc_at + desc_len.checked_next_multiple_of(4)?..)?;
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
