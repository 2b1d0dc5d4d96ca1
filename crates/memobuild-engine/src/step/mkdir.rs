//! `WORKDIR`: a directory is made if it is not there.

use memobuild_plan::model::Mkdir;

use super::{Ahead, Committed, Values, value};
use crate::{
    EngineError,
    copy::{Edited, Editor},
    resolve,
    session::Session,
    value::Value,
};

fn change(session: &Session<'_>, mkdir: &Mkdir, values: &Values) -> Result<Edited, EngineError> {
    let tree = value(values, mkdir.parent)?.tree(session.store)?;
    let owner = match mkdir.user.as_str() {
        "" => (0, 0),
        user => resolve::owner(session, user, &tree)?
            .map_err(|e| EngineError::step(format!("WORKDIR {}: {e}", mkdir.path)))?,
    };
    let mut editor = Editor::new(tree, session.now());
    editor
        .mkdir_all(mkdir.path.as_bytes(), 0o755, owner)
        .map_err(|e| EngineError::step(format!("WORKDIR {}: {e}", mkdir.path)))?;
    Ok(editor.finish())
}

pub(super) fn execute(session: &Session<'_>, mkdir: &Mkdir, values: &Values) -> Result<Committed, EngineError> {
    let Edited { tree, diff, looks } = change(session, mkdir, values)?;
    let bundle = if diff.is_empty() { None } else { Some(session.store.bundle_writer().finish(&diff)?) };
    Ok(Committed { bundle, tree, looks: Some(vec![looks]), sound: true })
}

pub(super) fn foresee(session: &Session<'_>, mkdir: &Mkdir, values: &Values) -> Result<Ahead, EngineError> {
    let Edited { tree, diff, .. } = change(session, mkdir, values)?;
    Ok(Ahead { value: Value::ready(tree, None), diff })
}
