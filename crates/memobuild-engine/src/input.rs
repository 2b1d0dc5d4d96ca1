//! Where a build's Dockerfile and context come from: files, standard input, archives and repositories.

use std::{
    io::{Cursor, Read},
    path::{Path, PathBuf},
    process::Command,
};

use memobuild_observe::FailureKind;
use memobuild_oci::layer::archive::{self, ExtractOptions};
use memobuild_store::{ScratchDir, Store};
use memobuild_tree::{Diff, Node, Tree};

use crate::{
    BuildRequest, ContextInput, DockerfileInput, EngineError,
    contexts::{Contexts, IgnoreFile, MAX_TEXT, MainContext, read_bounded, read_ignore, too_long},
};

/// What was read before planning.
pub(crate) struct Input {
    /// The Dockerfile's text and its name for messages.
    pub(crate) text: Vec<u8>,
    pub(crate) name: String,
    pub(crate) contexts: Contexts,
    /// Holds a context that was fetched.
    pub(crate) _fetched: Option<ScratchDir>,
}

/// What is looked at of standard input to tell an archive from a Dockerfile: enough for the first block of any
/// compression.
const HEAD: u64 = 1 << 20;
const NAMES: [&str; 2] = ["Dockerfile", "dockerfile"];

fn usage(message: String) -> EngineError {
    EngineError::new(FailureKind::Usage, message)
}

/// Reads the Dockerfile and finds the context.
pub(crate) fn load(store: &Store, request: &BuildRequest) -> Result<Input, EngineError> {
    let (main, fetched) = match &request.context {
        ContextInput::Directory(dir) => (Some(directory(dir)?), None),
        ContextInput::Url(url) => {
            let scratch = store.scratch_dir()?;
            let main = fetch(store, url, scratch.path())?;
            (Some(main), Some(scratch))
        }
        ContextInput::Stdin => {
            if request.dockerfile == DockerfileInput::Stdin {
                return Err(usage("context and Dockerfile can't both come from standard input".into()));
            }
            let failed = |e: std::io::Error| usage(format!("cannot read standard input: {e}"));
            let mut head = Vec::new();
            std::io::stdin().take(HEAD).read_to_end(&mut head).map_err(failed)?;
            let whole = Cursor::new(head.clone()).chain(std::io::stdin());
            if !archive::is_archive(&mut Cursor::new(head)) {
                // A Dockerfile without a context.
                return Ok(Input {
                    text: read_bounded(whole, MAX_TEXT).map_err(failed)?.ok_or_else(|| too_long("the Dockerfile"))?,
                    name: "Dockerfile".into(),
                    contexts: contexts(request, Some(MainContext::Tree(Tree::default())), None),
                    _fetched: None,
                });
            }
            (Some(unpack(store, whole)?), None)
        }
    };
    let (text, name, ignore) = dockerfile(store, request, main.as_ref())?;
    Ok(Input { text, name, contexts: contexts(request, main, ignore), _fetched: fetched })
}

fn contexts(request: &BuildRequest, main: Option<MainContext>, ignore: Option<IgnoreFile>) -> Contexts {
    Contexts::new(main, ignore, &request.options.contexts)
}

fn directory(dir: &Path) -> Result<MainContext, EngineError> {
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(usage(format!("the context {} is not a directory", dir.display()))),
        Err(e) => return Err(usage(format!("cannot read the context {}: {e}", dir.display()))),
    }
    std::fs::read_dir(dir).map_err(|e| usage(format!("cannot read the context {}: {e}", dir.display())))?;
    Ok(MainContext::Directory(dir.to_owned()))
}

fn unpack(store: &Store, reader: impl Read + Send) -> Result<MainContext, EngineError> {
    let writer = store.bundle_writer();
    let options = ExtractOptions { dest: b"/", below: None, owner: Some((0, 0)) };
    let root = archive::extract(reader, &writer, &options)
        .map_err(|e| usage(format!("the context archive: {}", EngineError::chain(FailureKind::Usage, &e).message)))?;
    let diff = Diff { root };
    writer.finish(&diff)?;
    let tree = diff.apply(&Tree::default()).map_err(|e| usage(format!("the context archive: {e}")))?;
    Ok(MainContext::Tree(tree))
}

/// A repository by its URL (`URL#REF:DIR`), or an archive.
fn fetch(store: &Store, url: &str, scratch: &Path) -> Result<MainContext, EngineError> {
    let (remote, fragment) = url.split_once('#').unwrap_or((url, ""));
    let archive_url = (remote.starts_with("http://") || remote.starts_with("https://")) && !remote.ends_with(".git");
    if archive_url {
        let fetched = memobuild_oci::http::fetch(remote, None, store)
            .map_err(|e| EngineError::chain(FailureKind::Registry, &e))?;
        return unpack(store, store.content(&fetched.content)?.reader());
    }
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    if remote.starts_with('-') || reference.starts_with('-') {
        return Err(usage(format!("not a repository: {url}")));
    }
    let dir = scratch.join("context");
    let run = |args: &[&str]| -> Result<(), EngineError> {
        let output = Command::new("git").args(args).env("GIT_TERMINAL_PROMPT", "0").output().map_err(|e| {
            EngineError::new(FailureKind::Machine, format!("cannot run git: {e}"))
                .with_hint("install git to build from a repository")
        })?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(()) } else { Err(EngineError::new(FailureKind::Registry, text)) }
    };
    let at = dir.display().to_string();
    run(&["clone", "-q", "--recurse-submodules", "--", remote, &at])?;
    if !reference.is_empty() {
        run(&["-C", &at, "checkout", "-q", reference])?;
    }
    let root = memobuild_tree::path::components(subdir.as_bytes())
        .iter()
        .fold(dir, |at, part| at.join(String::from_utf8_lossy(part).as_ref()));
    directory(&root)
}

type Loaded = (Vec<u8>, String, Option<IgnoreFile>);

fn dockerfile(store: &Store, request: &BuildRequest, main: Option<&MainContext>) -> Result<Loaded, EngineError> {
    match &request.dockerfile {
        DockerfileInput::Stdin => {
            let text = read_bounded(std::io::stdin(), MAX_TEXT)
                .map_err(|e| usage(format!("cannot read the Dockerfile from standard input: {e}")))?;
            Ok((text.ok_or_else(|| too_long("the Dockerfile"))?, "Dockerfile".into(), None))
        }
        DockerfileInput::Path(path) => match main {
            Some(MainContext::Tree(tree)) => in_tree(store, tree, &[&path.to_string_lossy()]),
            _ => from_file(path),
        },
        DockerfileInput::InContext => match main {
            Some(MainContext::Directory(dir)) => {
                let found = NAMES.iter().map(|name| dir.join(name)).find(|path| path.exists());
                from_file(&found.unwrap_or_else(|| dir.join("Dockerfile")))
            }
            Some(MainContext::Tree(tree)) => in_tree(store, tree, &NAMES),
            None => Err(usage("this build has neither context nor Dockerfile".into())),
        },
    }
}

fn from_file(path: &Path) -> Result<Loaded, EngineError> {
    let failed = |e: std::io::Error| {
        let error = EngineError::new(
            FailureKind::Dockerfile,
            format!("failed to read dockerfile: cannot open {}: {e}", path.display()),
        );
        match e.kind() {
            std::io::ErrorKind::NotFound => error.with_hint("name another file with -f FILE"),
            _ => error,
        }
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let text = read_bounded(file, MAX_TEXT).map_err(failed)?.ok_or_else(|| too_long(&path.display().to_string()))?;
    let name = path.file_name().map_or_else(|| "Dockerfile".into(), |n| n.to_string_lossy().into_owned());
    // `NAME.dockerignore` beside the Dockerfile stands in for the context's own.
    let beside: PathBuf = path.with_file_name(format!("{name}.dockerignore"));
    let ignore = read_ignore(&beside, &format!("{name}.dockerignore"))?;
    Ok((text, name, ignore))
}

fn in_tree(store: &Store, tree: &Tree, names: &[&str]) -> Result<Loaded, EngineError> {
    let read = |name: &str| -> Result<Option<Vec<u8>>, EngineError> {
        match tree.resolve(name.as_bytes(), true).ok().and_then(|r| r.node) {
            Some(Node::File(file)) if file.size > MAX_TEXT => Err(too_long(name)),
            Some(Node::File(file)) => Ok(Some(store.content(&file.content)?.read_all()?)),
            _ => Ok(None),
        }
    };
    for name in names {
        if let Some(text) = read(name)? {
            for beside in [format!("{name}.dockerignore"), ".dockerignore".to_owned()] {
                if let Some(found) = read(&beside)? {
                    return Ok((text, (*name).to_owned(), Some(IgnoreFile { name: beside, text: found })));
                }
            }
            return Ok((text, (*name).to_owned(), None));
        }
    }
    Err(EngineError::new(FailureKind::Dockerfile, "failed to read dockerfile: the context has none"))
}
