//! `resolve`: one value in place of all that are there.

use crate::args::{Resolve, Writing};
use crate::failure::Failure;
use crate::output;
use crate::session::Session;
use crate::{read, value, write};
use quorate_client::{ReadAnswer, Sibling, Supersede, WriteOptions};
use std::os::unix::ffi::OsStringExt;

pub async fn run(session: &Session, resolve: Resolve) -> Result<(), Failure> {
    let key = value::key(&resolve.key);
    let answer = read::read(session, &key).await?;
    let mut expires_ms = None;
    let winner = match (resolve.value, resolve.pick, resolve.file) {
        (Some(value), _, _) => value.into_vec(),
        (None, Some(pick), _) => {
            if answer.siblings.is_empty() {
                return Err(read::not_found(session, &key, &answer));
            }
            let picked = picked(&answer, &pick)?;
            if answer.siblings.len() == 1 {
                return nothing_to_do(session);
            }
            expires_ms = picked.expires_ms;
            picked.value.to_vec()
        }
        (None, None, Some(file)) => value::value(file, false)?,
        (None, None, None) => unreachable!("one of the three is required by the command line"),
    };
    // The write replaces what was read here, or what the caller has seen: never what came in between unseen.
    let seen = Supersede::Seen(resolve.context.unwrap_or(answer.context));
    let options = WriteOptions { supersede: Some(seen), expires_ms, ..session.write_options(&Writing::default()) };
    write::store(session, key, winner, options).await
}

fn nothing_to_do(session: &Session) -> Result<(), Failure> {
    if session.common.output.is_json() {
        let value = serde_json::json!({ "outcome": "nothing_to_resolve" });
        return output::document(&value, session.common.output);
    }
    output::line("nothing to resolve: the key has one value, and it stays")
}

/// By number, from 1 in the order of `siblings`, or by version.
fn picked<'a>(answer: &'a ReadAnswer, pick: &str) -> Result<&'a Sibling, Failure> {
    let by_number = || answer.siblings.get(pick.parse::<usize>().ok()?.checked_sub(1)?);
    let by_version = || answer.siblings.iter().find(|s| s.dot.to_string() == pick);
    by_number().or_else(by_version).ok_or_else(|| {
        let count = answer.siblings.len();
        Failure::usage(format!("there is no sibling {pick:?}: the key has {count}"))
            .state("nothing was written anywhere")
            .advise("pick a number or a version, as `quorate siblings KEY` shows them")
    })
}
