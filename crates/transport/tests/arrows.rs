//! The modules of the crate know each other only as `docs/architecture.md` says, and quinn is named in one folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            into.push(path);
        }
    }
}

/// Each source file with its top-level module, without comments and unit tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let source = |path: PathBuf| {
        let first = path.strip_prefix(&root).unwrap().iter().next().unwrap().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
        (module, code.join("\n"))
    };
    paths.into_iter().map(source).filter(|(module, _)| module != "lib").collect()
}

/// What follows `crate::` in a piece of code: one name, or those at the top of a list in braces.
fn named(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut names, mut fresh) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && c.is_alphabetic() => {
                names.push(name(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn arrows() -> Arrows {
    let sources = sources();
    let modules: BTreeSet<_> = sources.iter().map(|(module, _)| module.clone()).collect();
    let mut arrows = Arrows::new();
    for (module, code) in &sources {
        let of = arrows.entry(module.clone()).or_default();
        for (at, _) in code.match_indices("crate::") {
            // `pub(in crate::…)` does not use anything.
            if !code[..at].ends_with("pub(in ") {
                let names = named(&code[at + "crate::".len()..]).into_iter();
                // The crate's root re-exports this one.
                let names = names.map(|name| if name == "Identity" { "identity".to_owned() } else { name });
                of.extend(names.filter(|name| name != module && modules.contains(name)));
            }
        }
    }
    arrows
}

/// The list in the documentation: `module → others`, one a line.
fn documented() -> Arrows {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/architecture.md");
    let text = fs::read_to_string(path).unwrap();
    let list = text.split("```arrows\n").nth(1).expect("a list of arrows").split("```").next().unwrap();
    let names = |text: &str| text.split_whitespace().map(String::from).collect::<BTreeSet<_>>();
    list.lines()
        .map(|line| {
            let (module, others) = line.split_once('→').unwrap();
            (module.trim().to_owned(), names(others))
        })
        .collect()
}

#[test]
fn modules_know_each_other_as_documented() {
    let arrows = arrows();
    let mut list = String::new();
    for (module, others) in &arrows {
        let others: Vec<_> = others.iter().map(String::as_str).collect();
        list += format!("{module} → {}", others.join(" ")).trim_end();
        list += "\n";
    }
    assert_eq!(arrows, documented(), "the code has:\n{list}");
}

#[test]
fn there_are_no_circles() {
    let mut left = arrows();
    assert!(left.len() > 10, "{left:?}");
    // Takes away what knows nothing that is left, until nothing is.
    while !left.is_empty() {
        let names: BTreeSet<_> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, others| others.iter().any(|other| names.contains(other)));
        assert!(left.len() < before, "these know each other in a circle: {left:?}");
    }
}

#[test]
fn quinn_is_named_in_one_folder() {
    let naming = |code: &str| {
        code.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| matches!(word, "quinn" | "quinn_proto" | "h3_quinn"))
    };
    let all: BTreeSet<_> = sources().into_iter().filter(|(_, code)| naming(code)).map(|(module, _)| module).collect();
    assert_eq!(all, BTreeSet::from(["quic".to_owned()]));
}
