//! The process of a retraining and all that it starts, as a process group of their own.
//!
//! What leaves the group is beyond reach; nothing of ours does.

use std::{
    fs::File,
    io::{self, PipeReader, Read},
    os::unix::process::CommandExt,
    process::{Command, ExitStatus},
};

use rustix::{
    io::ioctl_fionbio,
    process::{
        Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getpriority_process, getrlimit,
        kill_process_group, prlimit, setpriority_pgrp, waitid,
    },
};

use super::{Output, RetrainOptions};

/// A process group. Dropping it kills it.
pub(super) struct Child {
    process: std::process::Child,
    group: Pid,
    /// What any of them says, on standard output or standard error. Reading never waits.
    said: PipeReader,
    reaped: bool,
}

impl Child {
    /// Starts the command with these variables in its environment, besides those of the server, and `input` as its standard
    /// input.
    ///
    /// Its bounds are set once it runs, which is soon enough for all but its first instructions.
    pub(super) fn start(
        options: &RetrainOptions,
        variables: &[(&str, &str)],
        input: File,
    ) -> io::Result<Self> {
        let (program, arguments) = options.command.split_first().expect("checked by the configuration");
        let (said, says) = io::pipe()?;
        ioctl_fionbio(&said, true)?;
        let process = Command::new(program)
            .args(arguments)
            .current_dir(&options.dir)
            .envs(variables.iter().copied())
            .stdin(input)
            .stdout(says.try_clone()?)
            .stderr(says)
            .process_group(0)
            .spawn()?;
        let child = Self { group: Pid::from_child(&process), process, said, reaped: false };
        child.bound(options)?;
        Ok(child)
    }

    fn bound(&self, options: &RetrainOptions) -> io::Result<()> {
        // As `nice` does: from where the server is.
        let priority = (getpriority_process(None)? + i32::from(options.nice)).min(LEAST_PRIORITY);
        setpriority_pgrp(Some(self.group), priority)?;
        if let Some(bytes) = options.max_memory_bytes {
            // What files that are mapped take can be had again, and is none of it.
            let most = getrlimit(Resource::Data).maximum.unwrap_or(u64::MAX);
            let bytes = Some(bytes.get().min(most));
            prlimit(Some(self.group), Resource::Data, Rlimit { current: bytes, maximum: bytes })?;
        }
        Ok(())
    }

    /// Moves what was said since the last time to `output`, up to [`MOST_READ_BYTES`].
    pub(super) fn listen(&mut self, output: &mut Output) {
        let mut buffer = vec![0; 64 << 10];
        let mut read = 0;
        while read < MOST_READ_BYTES {
            match self.said.read(&mut buffer) {
                Ok(0) => return,
                Ok(bytes) => {
                    output.take(&buffer[..bytes]);
                    read += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing more for now; a pipe has no other errors.
                Err(_) => return,
            }
        }
    }

    /// Whether the command itself has ended. It is not reaped here, so that its number stays that of its group.
    pub(super) fn has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.group), options)?.is_some())
    }

    /// Asks all of them to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends all of them.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Ends whatever the command has left behind, and says how it ended itself.
    pub(super) fn reap(mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.reaped = true;
        self.process.wait()
    }

    fn signal(&self, signal: Signal) {
        // Where there is nobody left, that is what was wanted.
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.process.wait();
        }
    }
}

/// The nicest that a process can be.
const LEAST_PRIORITY: i32 = 19;

/// What is read at once, so that a child that never stops talking cannot keep its server listening.
const MOST_READ_BYTES: usize = 4 << 20;
