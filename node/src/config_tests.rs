use super::*;

const TOPOLOGY: &str = r#"
cluster = "000102030405060708090a0b0c0d0e0f"
epoch = 1
[[node]]
id = 1
name = "n1"
client_address = "127.0.0.1:7001"
peer_address = "127.0.0.1:7101"
rack = "a"
[[bucket]]
id = 1
name = "default"
n = 1
"#;

/// A folder with a topology and a configuration of the given text.
fn folder(config: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("topology.toml"), TOPOLOGY).unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, config).unwrap();
    (folder, path)
}

fn fault(from: &str, to: &str) -> String {
    let text = DEFAULT_FILE.replacen(from, to, 1);
    assert_ne!(text, DEFAULT_FILE, "{from} is not in the default file");
    let (_folder, path) = folder(&text);
    Config::load(Some(&path), Settings::default()).unwrap_err().to_string()
}

#[test]
fn the_default_file_says_what_holds_without_it() {
    let (folder, path) = folder(DEFAULT_FILE);
    let told = Config::load(Some(&path), Settings::default()).unwrap();
    let bare = "node = \"n1\"\ntopology = \"topology.toml\"\ndata = \"data\"\ncertificate = \"certs/n1.pem\"\n\
                key = \"certs/n1-key.pem\"\nnode_ca = \"certs/node-ca.pem\"\nclient_ca = \"certs/client-ca.pem\"\n";
    std::fs::write(&path, bare).unwrap();
    let untold = Config::load(Some(&path), Settings::default()).unwrap();
    assert_eq!(format!("{told:?}"), format!("{untold:?}"));
    assert_eq!(told.data, folder.path().join("data"), "paths are relative to the file");
}

#[test]
fn every_key_is_in_the_default_file() {
    let table: toml::Table = DEFAULT_FILE.parse().unwrap();
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("x"));
    let keys: Vec<String> = command.get_arguments().map(|a| a.get_id().to_string()).collect();
    assert_eq!(keys.len(), table.len());
    for key in keys {
        assert!(table.contains_key(&key), "{key} is missing");
    }
}

#[test]
fn each_fault_says_where_and_what() {
    let cases = [
        ("shards = 1", "shard = 1", "line 26: unknown field `shard`"),
        ("shards = 1", "shards = 0", "shards: expected 1 to 64, got 0"),
        ("shards = 1", "shards = \"one\"", "line 26: invalid type"),
        ("127.0.0.1:9101", "0.0.0.0:9101", "loopback"),
        ("node = \"n1\"", "node = \"n9\"", "has no node \"n9\"; it has n1"),
        ("data = \"data\"", "", "data is not set; set it in the configuration file, or by --data or QUORATE_DATA"),
        ("topology.toml", "nowhere.toml", "nowhere.toml: cannot be read"),
        ("inbox_bytes = 67_108_864", "inbox_bytes = 5", "inbox_bytes: expected 1048576 to"),
        (
            "inbox_bytes = 67_108_864",
            "inbox_bytes = 268_435_456",
            "memory_bytes: expected 603979776 to 1099511627776, as inbox_bytes is",
        ),
        ("memory_bytes = 268_435_456", "memory_bytes = 0", "memory_bytes: expected 201326592 to"),
        ("canary_bucket = \"\"", "canary_bucket = \"x\"", "expected a bucket of the topology (default), got x"),
        ("log_format = \"text\"", "log_format = \"xml\"", "line 64: unknown variant `xml`"),
    ];
    for (from, to, said) in cases {
        let got = fault(from, to);
        assert!(got.contains(said), "{from} -> {to}: {got}");
    }
}

#[test]
fn only_another_node_of_the_topology_can_be_excused() {
    let (folder, path) = folder(DEFAULT_FILE);
    let second = TOPOLOGY.replace(
        "[[bucket]]",
        "[[node]]\nid = 2\nname = \"n2\"\nclient_address = \"127.0.0.1:7002\"\n\
        peer_address = \"127.0.0.1:7102\"\nrack = \"b\"\n[[bucket]]",
    );
    std::fs::write(folder.path().join("topology.toml"), second).unwrap();
    let mut config = Config::load(Some(&path), Settings::default()).unwrap();
    for name in ["n1", "n9"] {
        let refused = config.excuse(&[name.to_string()]).unwrap_err().to_string();
        assert!(refused.contains("excuse: expected another node of the topology (n2)"), "{refused}");
    }
    config.excuse(&["n2".to_string()]).unwrap();
    assert_eq!(config.excused, BTreeSet::from([NodeId(2)]));
}

#[test]
fn what_is_given_outside_wins_over_the_file() {
    let (_folder, path) = folder(DEFAULT_FILE);
    let over = Settings { shards: Some(4), data: Some("elsewhere".into()), ..Settings::default() };
    let config = Config::load(Some(&path), over).unwrap();
    assert_eq!((config.shards, config.data), (4, PathBuf::from("elsewhere")));
}
