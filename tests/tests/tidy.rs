//! Habits of this repository, checked. Each rule is also shown a text that breaks it, so that it is known to fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const ROOMS: [&str; 5] = ["ring", "client", "node", "ops", "tests"];
/// Which packages of ours each may depend on, `[dependencies]` only.
const ARROWS: [(&str, &[&str]); 4] = [
    ("ring", &[]),
    ("client", &["quorate-ring"]),
    ("node", &["quorate-ring"]),
    ("ops", &["quorate-ring", "quorate-client"]),
];
/// Time, entropy, threads, sockets: what decides purely has none of them.
const IMPURE: [&str; 9] = [
    "Instant::now",
    "SystemTime::now",
    "now_utc",
    "getrandom",
    "std::thread",
    "tokio",
    "quinn",
    "UdpSocket",
    "TcpStream",
];
/// Their order differs from run to run.
const UNORDERED: [&str; 2] = ["HashMap", "HashSet"];
/// Folders of `node/src` that decide purely.
const PURE_ROOMS: [&str; 2] = ["node/src/kernel", "node/src/coordinator"];
const UNBOUNDED: [&str; 3] = ["unbounded_channel", "UnboundedSender", "std::sync::mpsc::channel"];
const UNFINISHED: [&str; 4] = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
/// Names that say nothing.
const EMPTY_NAMES: [&str; 3] = ["Manager", "Helper", "Util"];

/// A source file: its path from the root of the repository, and its text as written and as code alone.
struct Source {
    path: String,
    /// Comments, and what stands in quotes, are blank; lines are where they were.
    code: String,
    /// As `code`, and modules of tests are blank too; all blank in a file of tests.
    product: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = blank_comments_and_quotes(text);
        let product = if is_test_file(path) { String::new() } else { blank_test_modules(&code) };
        Self { path: path.to_string(), code, product }
    }

    fn at(&self, offset: usize) -> String {
        let line = 1 + self.code.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
        format!("{}:{line}", self.path)
    }

    /// Where a word of the product's code stands, on its own and not as part of a longer name.
    fn places<'a>(&'a self, word: &'a str) -> impl Iterator<Item = String> + 'a {
        let in_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let starts_name = in_name(word.chars().next());
        let ends_name = in_name(word.chars().last());
        self.product
            .match_indices(word)
            .filter(move |(at, _)| {
                let before = self.product[..*at].chars().last();
                let after = self.product[at + word.len()..].chars().next();
                !(starts_name && in_name(before) || ends_name && in_name(after))
            })
            .map(|(at, _)| self.at(at))
    }
}

fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.contains("/tests/") || path.starts_with("tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
}

fn blank_comments_and_quotes(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = quoted_or_comment(bytes, at);
        let (taken, blank) = if length > 0 { (length, true) } else { (1, false) };
        out.extend(bytes[at..at + taken].iter().map(|b| if blank && *b != b'\n' { b' ' } else { *b }));
        at += taken;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How long the comment, string or character is that begins here; 0 if none does.
fn quoted_or_comment(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |from: usize, what: &[u8]| {
        rest[from..].windows(what.len()).position(|w| w == what).map_or(rest.len(), |p| from + p + what.len())
    };
    let after_name = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => find(2, b"*/"),
        [b'r', b'"' | b'#', ..] if !after_name => {
            let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
            let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
            if rest.get(1 + hashes) == Some(&b'"') { find(2 + hashes, &end) } else { 0 }
        }
        [b'"', ..] => escaped_until(rest, b'"'),
        [b'\'', b'\\', ..] => escaped_until(rest, b'\''),
        [b'\'', _, b'\'', ..] => 3,
        _ => 0,
    }
}

fn escaped_until(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// From a brace to just behind the one that closes it.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return open + offset + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Where the body of the function that is declared here begins, if it has one. `[u8; 16]` is no end of a declaration.
fn body_start(code: &str, declaration: usize) -> Option<usize> {
    let mut depth = 0;
    for (offset, byte) in code.as_bytes()[declaration..].iter().enumerate() {
        match byte {
            b'[' | b'(' => depth += 1,
            b']' | b')' => depth -= 1,
            b'{' if depth == 0 => return Some(declaration + offset),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn blank_test_modules(code: &str) -> String {
    let mut code = code.to_string();
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]").map(|at| from + at) {
        let end = match code[at..].find(['{', ';']).map(|found| at + found) {
            Some(open) if code.as_bytes()[open] == b'{' => block_end(&code, open),
            Some(semicolon) => semicolon + 1,
            None => code.len(),
        };
        let blank: String = code[at..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        code.replace_range(at..end, &blank);
        from = end.min(code.len());
    }
    code
}

fn file_size(source: &Source) -> Vec<String> {
    // A file of tests is tests all through: it is as long as its stories.
    let lines = source.product.trim_end().lines().count();
    let faults = (lines > FILE_LINES_MAX)
        .then(|| format!("{}: {lines} lines, {FILE_LINES_MAX} at the most: split it by what it does", source.path));
    faults.into_iter().collect()
}

fn function_size(source: &Source) -> Vec<String> {
    let is_declaration = |at: usize| at == 0 || source.code.as_bytes()[at - 1].is_ascii_whitespace();
    let starts = source.code.match_indices("fn ").map(|(at, _)| at).filter(|at| is_declaration(*at));
    let long = |at: usize| {
        let open = body_start(&source.code, at)?;
        let lines = source.code[at..block_end(&source.code, open)].lines().count();
        let place = source.at(at);
        (lines > FUNCTION_LINES_MAX).then(|| format!("{place}: {lines} lines, {FUNCTION_LINES_MAX} at the most"))
    };
    starts.filter_map(long).collect()
}

fn purity(source: &Source) -> Vec<String> {
    let path = source.path.as_str();
    let in_ring = path.starts_with("ring/src/");
    let in_node = path.starts_with("node/src/");
    let at_the_edge = path.starts_with("node/src/runtime") || path == "node/src/main.rs";
    let pure = PURE_ROOMS.iter().any(|room| path.starts_with(room));
    let mut banned: Vec<&str> = Vec::new();
    if in_ring || (in_node && !at_the_edge) {
        banned.extend(IMPURE);
    }
    if in_ring || pure {
        banned.extend(UNORDERED);
    }
    let why = "only the runtime may: pass it in";
    banned.iter().flat_map(|word| source.places(word).map(move |at| format!("{at}: {word}; {why}"))).collect()
}

fn bans(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for word in UNBOUNDED {
        faults.extend(source.places(word).map(|at| format!("{at}: {word}; every queue has a bound")));
    }
    faults.extend(source.places(".unwrap()").map(|at| format!("{at}: unwrap; `expect` says why it cannot fail")));
    for word in EMPTY_NAMES {
        let named = source.product.match_indices(word).map(|(at, _)| source.at(at));
        faults.extend(named.map(|at| format!("{at}: {word} says nothing; name what it is")));
    }
    // Here the tests count too.
    for word in UNFINISHED {
        let found = source.code.match_indices(word).map(|(at, _)| source.at(at));
        faults.extend(found.map(|at| format!("{at}: {word}; finish it, or leave it out")));
    }
    faults
}

/// Whether a manifest depends on packages of ours that it should not see.
fn arrows(room: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else { return Vec::new() };
    let mut section = String::new();
    let mut faults = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.to_string();
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if section == "[dependencies]" && name.starts_with("quorate-") && !allowed.contains(&name) {
            faults.push(format!("{room}/Cargo.toml: {room} must not see {name}"));
        }
    }
    faults
}

fn faults(source: &Source) -> Vec<String> {
    [file_size(source), function_size(source), purity(source), bans(source)].concat()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the repository").to_path_buf()
}

/// Every Rust file of the rooms, by path from the root.
fn sources() -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = ROOMS.iter().map(|room| root.join(room)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("corpus") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn the_house_is_tidy() {
    let sources = sources();
    assert!(sources.len() > 20, "only {} files were found", sources.len());
    let mut all: Vec<String> = sources.iter().flat_map(|(path, text)| faults(&Source::new(path, text))).collect();
    for room in ROOMS {
        all.extend(arrows(room, &fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap()));
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let long_file = "fn a() {}\n".repeat(FILE_LINES_MAX + 1);
    let long_function = format!("fn a() {{\n{}}}\n", "    b();\n".repeat(FUNCTION_LINES_MAX));
    let long_with_array = long_function.replace("a()", "a(b: [u8; 4]) -> [u8; 2]");
    let planted = [
        ("client/src/a.rs", long_file.as_str(), "501 lines"),
        ("client/src/a.rs", long_function.as_str(), "72 lines"),
        ("tests/src/a.rs", long_function.as_str(), "72 lines"),
        ("ring/src/a.rs", long_with_array.as_str(), "72 lines"),
        ("node/src/kernel/a.rs", "let now = Instant::now();", "a.rs:1: Instant::now"),
        ("node/src/replica.rs", "\nuse tokio::sync;", "replica.rs:2: tokio"),
        ("node/src/storage/rocks.rs", "std::thread::spawn(f);", "std::thread"),
        ("node/src/coordinator/put.rs", "use std::collections::HashMap;", "HashMap"),
        ("ring/src/id.rs", "getrandom::fill(&mut bytes);", "getrandom"),
        ("ring/src/id.rs", "SystemTime::now()", "SystemTime::now"),
        ("node/src/runtime/a.rs", "let (a, b) = unbounded_channel();", "unbounded_channel"),
        ("client/src/a.rs", "let a = b.unwrap();", "unwrap"),
        ("ops/src/a.rs", "struct NodeManager;", "Manager"),
        ("ops/src/a.rs", "fn a() { todo!() }", "todo!"),
        ("tests/tests/a.rs", "#[test]\n#[ignore]\nfn a() {}", "a.rs:2: #[ignore"),
    ];
    for (path, text, expected) in planted {
        let found = faults(&Source::new(path, text));
        assert!(found.iter().any(|fault| fault.contains(expected)), "{path}: {text:.60}: {found:?}");
    }
    for (room, line) in [("ring", "quorate-client"), ("node", "quorate-client"), ("client", "quorate-node")] {
        let manifest = format!("[dependencies]\n{line}.workspace = true\n");
        assert_eq!(arrows(room, &manifest).len(), 1, "{room} -> {line}");
    }
}

#[test]
fn what_breaks_no_rule_is_left_alone() {
    let fine = [
        ("node/src/runtime/clock.rs", "let now = Instant::now(); tokio::spawn(f);"),
        ("node/src/kernel/a.rs", "// Instant::now() is for the runtime.\nlet text = \"tokio\";"),
        ("node/src/kernel/a.rs", "let text = r#\"a \" tokio\"#; let quote = '\"'; let quinnish = 1;"),
        ("client/src/a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { c.unwrap(); }\n}\n"),
        ("client/src/a_tests.rs", "fn b() { c.unwrap(); }"),
        ("client/src/a.rs", "let a = b.unwrap_or(1); fn it<'a>(x: &'a str) -> char { '{' }"),
    ];
    for (path, text) in fine {
        assert_eq!(faults(&Source::new(path, text)), Vec::<String>::new(), "{path}: {text}");
    }
    let product_after_tests = "#[cfg(test)]\nmod tests { fn a() { b.unwrap(); } }\nfn c() { d.unwrap(); }\n";
    let found = faults(&Source::new("client/src/a.rs", product_after_tests));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("client/src/a.rs:3:"), "{found:?}");
    assert!(arrows("ops", "[dependencies]\nquorate-client.workspace = true\n").is_empty());
    assert!(arrows("client", "[dev-dependencies]\nquorate-node.workspace = true\n").is_empty());
}
