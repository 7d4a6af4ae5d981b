//! Keys and values as they are typed.

use crate::failure::{Code, Failure};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const TOO_LONG_ADVICE: &str = "make it shorter, or divide it over several keys";
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
    from.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| unreadable(name, &e))?;
    if bytes.len() as u64 > VALUE_BYTES_MAX {
        let message = format!("{name} has more than {VALUE_BYTES_MAX} bytes, which is over the limit of every bucket");
        return Err(Failure::new(Code::NotApplied, message).state("nothing was sent").advise(TOO_LONG_ADVICE));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read {name}: {error}"))
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
        let failure = value(typed("@/dev/zero"), false).unwrap_err();
        assert!(failure.code.exit() == 4 && failure.message.contains("more than 8388608 bytes"), "{failure:?}");
    }
}
