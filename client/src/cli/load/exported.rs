//! A line of `quorate export`: the key and the value as they were, to be stored again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What `export` prints for a key; what else it says of it (bucket, version, time) is not stored again.
#[derive(Deserialize)]
struct Line {
    key: String,
    key_encoding: Option<Encoding>,
    value: Option<String>,
    encoding: Option<Encoding>,
    expires_ms: Option<u64>,
    siblings: Option<Vec<IgnoredAny>>,
}

/// Text stands as it is.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Base64,
}

#[derive(PartialEq, Eq, Debug)]
pub struct Exported {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub expires_ms: Option<u64>,
}

/// Or why nothing can be stored for this line.
pub fn parse(text: &[u8]) -> Result<Exported, String> {
    let line: Line = serde_json::from_slice(text).map_err(|e| format!("it is not a line of `quorate export`: {e}"))?;
    let value = match (line.value, line.siblings) {
        (Some(value), _) => value,
        (None, Some(siblings)) => {
            let count = siblings.len();
            return Err(format!("it has {count} concurrent values; `quorate resolve` the key, and export it again"));
        }
        (None, None) => return Err("it is not a line of `quorate export`: it has no value".to_string()),
    };
    let key = bytes("key", line.key, line.key_encoding)?;
    let value = bytes("value", value, line.encoding)?;
    Ok(Exported { key, value, expires_ms: line.expires_ms })
}

fn bytes(name: &str, text: String, encoding: Option<Encoding>) -> Result<Vec<u8>, String> {
    match encoding {
        None => Ok(text.into_bytes()),
        Some(Encoding::Base64) => STANDARD.decode(text).map_err(|e| format!("its {name} is not base64: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::put_bytes;
    use serde_json::{Map, Value, json};

    #[test]
    fn what_is_printed_comes_back_byte_for_byte() {
        for (key, value) in [(&b"k"[..], &b"plain \"text\"\n"[..]), (b"\xff\x00", b"\xfe"), (b"k", b"")] {
            let mut fields = Map::new();
            put_bytes(&mut fields, "value", value);
            put_bytes(&mut fields, "key", key);
            fields.insert("version".to_string(), json!("1.0a:3"));
            fields.insert("expires_ms".to_string(), json!(77));
            let parsed = parse(Value::Object(fields).to_string().as_bytes()).unwrap();
            assert_eq!(parsed, Exported { key: key.to_vec(), value: value.to_vec(), expires_ms: Some(77) });
        }
    }

    #[test]
    fn what_cannot_be_stored_says_why() {
        for (line, why) in [
            ("{\"key\":\"k\",\"siblings\":[{\"value\":\"a\"},{\"value\":\"b\"}]}", "2 concurrent values"),
            ("{\"key\":\"k\"}", "it has no value"),
            ("{\"geonameid\":1}", "missing field `key`"),
            ("{\"key\":\"k\",\"value\":\"?\",\"encoding\":\"base64\"}", "its value is not base64"),
            ("{\"key\":\"k\",\"value\":\"?\",\"encoding\":\"rot13\"}", "unknown variant"),
        ] {
            let refused = parse(line.as_bytes()).unwrap_err();
            assert!(refused.contains(why), "{line}: {refused}");
        }
    }
}
