//! Tables and advice for people, and the same as JSON.

use crate::cluster::{NodeView, Progress};
use crate::folder::Folder;
use crate::observe::prometheus::Watch;
use crate::probe::Readiness;
use crate::process::Doing;
use crate::relay::Account;
use comfy_table::{Table, presets};
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// One word for how a node is, and more where there is more to say.
fn state(node: &NodeView) -> (&'static str, &str) {
    match (node.doing, &node.readiness) {
        (Doing::Gone, _) => ("down", ""),
        (Doing::Paused, _) => ("paused", ""),
        (Doing::Running, Readiness::Ready) => ("ready", ""),
        (Doing::Running, Readiness::NotReady(why)) => ("not ready", why),
        (Doing::Running, Readiness::Silent) => ("silent", "its admin address does not answer"),
    }
}

/// A sentence, then a line for each node.
pub fn status_table(folder: &Folder, nodes: &[NodeView]) -> String {
    let ready = nodes.iter().filter(|node| state(node).0 == "ready").count();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NODE", "RACK", "STATE", "PID", "MEMORY", "CLIENT (UDP)", "PEER (UDP)", "ADMIN (HTTP)", ""]);
    for node in nodes {
        let (word, more) = state(node);
        let pid = node.record.process.as_ref().filter(|_| node.doing != Doing::Gone);
        table.add_row([
            node.record.name.clone(),
            node.record.rack.clone(),
            word.to_string(),
            pid.map_or("-".to_string(), |process| process.pid.to_string()),
            node.resident_bytes.map_or("-".to_string(), |bytes| format!("{} MiB", bytes >> 20)),
            node.record.client_address.to_string(),
            node.record.peer_address.to_string(),
            node.record.admin_address.to_string(),
            more.to_string(),
        ]);
    }
    format!("{ready} of {} nodes are ready in {}\n\n{table}", nodes.len(), folder.path().display())
}

/// `links`: what is done to them, in a lab with a relay.
pub fn status_json(folder: &Folder, nodes: &[NodeView], links: Option<&Account>) -> String {
    let entry = |node: &NodeView| {
        let (state, reason) = state(node);
        json!({
            "id": node.record.id,
            "name": node.record.name,
            "rack": node.record.rack,
            "state": state,
            "reason": reason,
            "pid": node.record.process.as_ref().filter(|_| node.doing != Doing::Gone).map(|process| process.pid),
            "resident_bytes": node.resident_bytes,
            "client_address": node.record.client_address,
            "peer_address": node.record.peer_address,
            "admin_address": node.record.admin_address,
        })
    };
    let nodes: Vec<_> = nodes.iter().map(entry).collect();
    json!({ "folder": folder.path(), "nodes": nodes, "links": links }).to_string()
}

/// What to type next, once a lab is up.
pub fn banner(folder: &Folder, programs: &Path, node: &str) -> String {
    let mut text = String::from("Try this next:\n\n");
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|entry| entry.join("quorate").is_file()));
    if !on_path {
        text += &format!("  export PATH=\"{}:$PATH\"\n", programs.display());
    }
    if std::env::current_dir().ok().map(|here| here.join(".lab")).as_deref() != Some(folder.path()) {
        text += &format!("  export QUORATE_LAB=\"{}\"\n", folder.path().display());
        text += &format!("  export QUORATE_PROFILE=\"{}\"\n", folder.client_profile().display());
    }
    text += "  quorate put hello world\n  quorate get hello --trace\n";
    text += &format!(
        "  quorate-lab kill {node}          # as if it had crashed; `quorate-lab restart {node}` brings it back\n"
    );
    text += "  quorate-lab status
  quorate-lab logs n1 -f
  quorate-lab down             # ends every node, keeps the data; `quorate-lab up` goes on with it
  quorate-lab destroy          # ends every node and removes the folder\n";
    text
}

/// Where to look at what is measured.
pub fn watch(watch: &Watch) -> String {
    let mut text = format!("Prometheus: http://{} (rules and alerts are loaded)\n", watch.prometheus.address);
    text += &match &watch.grafana {
        Some(grafana) => format!("Grafana:    http://{} (dashboards in the folder Quorate)", grafana.address),
        None => "Grafana:    not on this machine; its dashboards and provisioning lie in grafana/".to_string(),
    };
    text
}

/// Shows on stderr how a wait comes along: one line that changes on a terminal, else a line for each piece of news.
pub fn progress_line(progress: Progress<'_>) {
    let Progress { news, ready, all, since } = progress;
    let mut stderr = io::stderr().lock();
    // Nothing to be done when nobody can be told.
    let _ = if stderr.is_terminal() {
        let end = if ready == all { "\n" } else { "" };
        write!(stderr, "\r\x1b[K{ready} of {all} nodes ready after {:.1} s{end}", since.as_secs_f64())
            .and_then(|()| stderr.flush())
    } else if let Some(name) = news {
        writeln!(stderr, "{name} is ready after {:.1} s ({ready} of {all})", since.as_secs_f64())
    } else {
        Ok(())
    };
}
