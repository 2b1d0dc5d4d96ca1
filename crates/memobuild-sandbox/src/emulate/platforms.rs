//! The platforms whose steps can be run on this machine, and by what: for `memobuild doctor`.

use std::path::PathBuf;

use memobuild_tree::path;

use super::{
    kernel::{self, Handlers},
    machine::MACHINES,
    qemu::Emulator,
};

/// By what the programs of a platform are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runner {
    /// This machine itself.
    Native,
    /// A handler that is registered with the kernel (binfmt_misc): its interpreter, where handlers can be listed.
    Kernel(Option<String>),
    /// memobuild's own emulation, by this program.
    Own(PathBuf),
}

/// What can be run here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Platforms {
    /// Each platform, like `linux/arm64`, and by what it is run; this machine's own first.
    pub runnable: Vec<(&'static str, Runner)>,
    /// Why memobuild's own emulation does not work, where it would be of use.
    pub no_emulation: Option<String>,
}

impl Platforms {
    /// Looks. `try_own` says whether emulators can be registered for steps alone; it is asked only where there are any
    /// that would be needed.
    pub(crate) fn look(try_own: impl FnOnce(&[Emulator]) -> Result<(), String>) -> Self {
        let handlers = Handlers::look();
        let by_kernel = |machine: &super::Machine| match &handlers {
            Handlers::Listed(_) => {
                // Without flag F a handler is of use only to images that hold the interpreter.
                let handler = handlers.find(&machine.head(), |_| false)?;
                Some(Runner::Kernel(Some(path::display(&handler.interpreter))))
            }
            Handlers::Hidden => kernel::starts(*machine).then_some(Runner::Kernel(None)),
        };
        let mut runnable = Vec::new();
        let mut own = Vec::new();
        for machine in MACHINES {
            if kernel::is_native(machine) {
                runnable.push((machine.platform, Runner::Native));
            } else if let Some(runner) = by_kernel(&machine) {
                runnable.push((machine.platform, runner));
            } else if let Some(emulator) = Emulator::all().iter().find(|emulator| emulator.machine == machine) {
                own.push(emulator);
            }
        }
        let works = if own.is_empty() { Ok(()) } else { try_own(Emulator::all()) };
        if works.is_ok() {
            runnable.extend(
                own.into_iter().map(|emulator| (emulator.machine.platform, Runner::Own(emulator.path.clone()))),
            );
        }
        runnable.sort_by_key(|(_, runner)| *runner != Runner::Native);
        Self { runnable, no_emulation: works.err() }
    }
}
