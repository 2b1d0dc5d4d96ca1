//! Programs of other processors: what a step needs, what the kernel runs, and memobuild's own emulation.
//!
//! In: a step and its contents. Out: whether it is one for another machine, and emulators to register. Since Linux 6.7 a
//! user namespace can have handlers of its own (binfmt_misc); the sandbox registers QEMU there for the steps that need
//! it, so that nobody has to set anything up, and nothing is seen outside of those steps. Called by `sandbox`.

mod kernel;
mod machine;
mod platforms;
mod program;
mod qemu;

pub(crate) use machine::Machine;
pub use platforms::{Platforms, Runner};
pub(crate) use qemu::Emulator;

use memobuild_tree::path;

use crate::{contents::Contents, error::SandboxError, step::Step};

/// A step that this machine can't run by itself.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    /// What it is for.
    pub(crate) machine: Machine,
    /// The platform, in the step's own words where it has any.
    pub(crate) platform: String,
    /// The program that shows it; `None` if only the step's platform says so, and it may turn out otherwise.
    pub(crate) program: Option<String>,
    head: Vec<u8>,
}

impl Need {
    /// What the step needs, by its program or, where that can't be looked at, by its platform; `None` if this machine
    /// runs it, as far as can be told.
    pub(crate) fn of(step: &Step, contents: &dyn Contents) -> Option<Self> {
        let asked = step.platform.as_deref();
        let by_platform = asked.and_then(Machine::of_platform);
        let foreign = |machine: Option<Machine>| machine.filter(|machine| !kernel::is_native(*machine));
        let in_words = |machine: Machine| match asked {
            Some(words) if by_platform == Some(machine) => words.to_owned(),
            _ => machine.platform.to_owned(),
        };
        match program::of(step, contents) {
            Some(program) => foreign(Machine::of_program(&program.head)).map(|machine| Self {
                machine,
                platform: in_words(machine),
                program: Some(path::display(&program.path)),
                head: program.head,
            }),
            None => foreign(by_platform).map(|machine| Self {
                machine,
                platform: in_words(machine),
                program: None,
                head: machine.head().to_vec(),
            }),
        }
    }

    /// That it can't be had.
    pub(crate) fn unmet(&self, reason: String) -> SandboxError {
        let program = match &self.program {
            Some(program) => format!("{program} is a program of that platform"),
            None => "the step is for that platform".to_owned(),
        };
        SandboxError::Foreign { platform: self.platform.clone(), program, reason }
    }

    /// Whether the kernel has a handler for it that works in this step.
    pub(crate) fn is_handled(&self, step: &Step) -> bool {
        match kernel::Handlers::look() {
            kernel::Handlers::Hidden => kernel::starts(self.machine),
            listed @ kernel::Handlers::Listed(_) => {
                let has = |at: &[u8]| step.root.resolve(at, true).is_ok_and(|found| found.node.is_some());
                listed.find(&self.head, has).is_some()
            }
        }
    }

    /// What is to be registered for it: the emulators of this machine, if there is one among them. An error says what
    /// lacks.
    pub(crate) fn emulators(&self) -> Result<&'static [Emulator], String> {
        let all = Emulator::all();
        match all.iter().any(|emulator| emulator.machine == self.machine) {
            true => Ok(all),
            false => Err(lacking(self.machine)),
        }
    }
}

/// That there is no emulator.
fn lacking(machine: Machine) -> String {
    format!("there is no statically linked qemu-{} (version 6 or newer)", machine.qemu)
}
