//! A disk for tests: it runs out of room, fails, stalls and loses power when told to, and then forgets what was not synced,
//! or parts of it.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use super::store::{File, Store};

/// A folder on such a disk. Clones are the same folder.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeDisk {
    state: Arc<Mutex<State>>,
    lock: Arc<Mutex<Option<Arc<()>>>>,
    /// Syncs of data and of names wait for whoever holds this.
    pub(super) stall: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    files: BTreeMap<String, Inode>,
    /// The names that outlast a crash.
    synced: BTreeMap<String, Inode>,
    pub(super) quarantined: Vec<String>,
    pub(super) faults: Faults,
    pub(super) data_syncs: usize,
}

/// What goes wrong from now on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Operations until the power fails.
    pub(super) power: Option<usize>,
    /// Bytes that a file may reserve.
    pub(super) room: Option<u64>,
    pub(super) write: Option<io::ErrorKind>,
    pub(super) sync: Option<io::ErrorKind>,
    /// Whether a write takes 7 bytes at most.
    pub(super) short: bool,
}

type Inode = Arc<Mutex<Contents>>;

#[derive(Debug, Default)]
struct Contents {
    seen: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// Numbers that look random, the same for the same seed.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Less than `sides`. Source: Steele et al., 2014, `SplitMix64`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).expect("fits")
    }

    fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }
}

impl FakeDisk {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    pub(super) fn fail(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Puts a file there, on disk.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let contents = Contents { seen: bytes.to_vec(), synced: bytes.to_vec(), pending: Vec::new() };
        let (mut state, inode) = (self.state(), Arc::new(Mutex::new(contents)));
        state.files.insert(name.to_owned(), Arc::clone(&inode));
        state.synced.insert(name.to_owned(), inode);
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.state().files[name].lock().expect("no test panics with it").seen.clone()
    }

    /// What comes back with the power: of what was not synced any part, in sectors, and one of them torn.
    pub(super) fn crash(&self, dice: &mut Dice) {
        let mut state = self.state();
        state.faults = Faults::default();
        let mut names = state.synced.clone();
        for (name, inode) in &state.files {
            if !names.contains_key(name) && dice.coin() {
                names.insert(name.clone(), Arc::clone(inode));
            }
        }
        names.retain(|name, _| state.files.contains_key(name) || dice.coin());
        for inode in names.values() {
            inode.lock().expect("no test panics with it").crash(dice);
        }
        state.files.clone_from(&names);
        state.synced = names;
    }
}

impl State {
    /// Counts an operation; an error once the power is gone.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.faults.power {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Contents {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        self.pending.clear();
        self.synced.clone_from(&self.seen);
    }

    fn crash(&mut self, dice: &mut Dice) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Length(_) if dice.coin() => change.apply(&mut self.synced),
                Change::Length(_) => {}
                Change::Write(at, bytes) => Self::tear(&mut self.synced, at, &bytes, dice),
            }
        }
        self.seen.clone_from(&self.synced);
    }

    fn tear(synced: &mut Vec<u8>, at: usize, bytes: &[u8], dice: &mut Dice) {
        let to_sector = SECTOR_BYTES - at % SECTOR_BYTES;
        let (first, rest) = bytes.split_at(to_sector.min(bytes.len()));
        let torn = dice.roll(2 + bytes.len() / SECTOR_BYTES);
        let mut at = at;
        // A write may be there as a whole, too.
        let all = dice.roll(4) == 0;
        for (index, sector) in std::iter::once(first).chain(rest.chunks(SECTOR_BYTES)).enumerate() {
            let kept = if index == torn && !all { dice.roll(sector.len() + 1) } else { sector.len() };
            if all || dice.coin() {
                Change::Write(at, sector[..kept].to_vec()).apply(synced);
            }
            at += sector.len();
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(at, written) => {
                let end = at + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(written);
            }
        }
    }
}

impl Store for FakeDisk {
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let mut lock = self.lock.lock().expect("no test panics with it");
        if lock.as_ref().is_some_and(|held| Arc::strong_count(held) > 1) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let held = Arc::new(());
        *lock = Some(Arc::clone(&held));
        Ok(Box::new(held))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.operate()?;
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Inode::default();
        state.files.insert(name.to_owned(), Arc::clone(&inode));
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let inode = self.state().files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.files.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn quarantine(&self, name: &str) -> io::Result<()> {
        self.remove(name)?;
        self.state().quarantined.push(name.to_owned());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.stall.lock().expect("no test panics with it"));
        let mut state = self.state();
        state.operate()?;
        state.synced = state.files.clone();
        Ok(())
    }

    fn modified(&self, _: &str) -> io::Result<SystemTime> {
        Ok(SystemTime::now())
    }
}

#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    inode: Inode,
}

impl FakeFile {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.inode.lock().expect("no test panics with it")
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate()?;
        if let Some(kind) = state.faults.sync {
            return Err(kind.into());
        }
        self.contents().sync();
        Ok(())
    }
}

impl File for FakeFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.contents().seen.len() as u64)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let contents = self.contents();
        let rest = contents.seen.get(index(offset)..).unwrap_or_default();
        let read = rest.len().min(out.len());
        out[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let (alive, faults) = (state.operate(), state.faults);
        if let Some(kind) = faults.write {
            return Err(kind.into());
        }
        let taken = if faults.short { bytes.len().min(7) } else { bytes.len() };
        // What was being written when the power failed may be there as well.
        if alive.is_ok() || faults.power == Some(0) {
            self.contents().change(Change::Write(index(offset), bytes[..taken].to_vec()));
        }
        alive.map(|()| taken)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate()?;
        if state.faults.room.is_some_and(|room| bytes > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut contents = self.contents();
        let length = contents.seen.len().max(index(bytes));
        contents.change(Change::Length(length));
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.state().operate()?;
        self.contents().change(Change::Length(index(bytes)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        drop(self.disk.stall.lock().expect("no test panics with it"));
        self.disk.state().data_syncs += 1;
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a small file")
}

const SECTOR_BYTES: usize = 512;
