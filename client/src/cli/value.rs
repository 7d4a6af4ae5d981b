//! Keys and values as they are typed.

use crate::failure::Failure;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// No bucket takes more; reading stops here.
const VALUE_BYTES_MAX: u64 = quorate_ring::topology::VALUE_BYTES_MAX as u64;

pub fn key(typed: &OsStr) -> Vec<u8> {
    typed.as_bytes().to_vec()
}

/// `-` is stdin, `@FILE` a file, anything else itself.
pub fn value(typed: OsString, literal: bool) -> Result<Vec<u8>, Failure> {
    match typed.as_bytes() {
        _ if literal => Ok(typed.into_vec()),
        b"-" => read(std::io::stdin().lock(), "stdin"),
        [b'@', name @ ..] => {
            let path = Path::new(OsStr::from_bytes(name));
            let shown = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|e| unreadable(&shown, &e))?;
            read(file, &shown)
        }
        _ => Ok(typed.into_vec()),
    }
}

fn read(from: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One more than is allowed, so that the limit of the bucket refuses what was cut off here.
    from.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(name, &e))?;
    Ok(bytes)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read {name}: {error}")).state("nothing was sent")
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_itself_or_a_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("v");
        std::fs::write(&path, [1, 0xff, b'\n']).unwrap();
        let typed = |text: &str| OsString::from(text);
        assert_eq!(value(typed("plain"), false).unwrap(), b"plain");
        let at = format!("@{}", path.display());
        assert_eq!(value(typed(&at), false).unwrap(), [1, 0xff, b'\n']);
        assert_eq!(value(typed(&at), true).unwrap(), at.as_bytes());
        assert_eq!(value(typed("-"), true).unwrap(), b"-");
        let failure = value(typed("@/no/such/file"), false).unwrap_err();
        assert_eq!(failure.code.exit(), 2);
    }
}
