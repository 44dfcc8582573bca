//! Which of the files in a folder have been rotated and not read, and in which order they were written.
//!
//! A file that is followed is found by its inode and by what was read of it. A copy of it, which was made before it was
//! emptied, continues it. Of the others all those were rotated since then that are not [known](super::known).

use std::{
    collections::BTreeSet,
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    checkpoint::{Checkpoint, LAST},
    claim::Claim,
    find::Found,
    known::{Known, Mark},
    open::{FileId, What, identity, open},
    places::{Places, is_in},
    rotated::{Order, Rotated, in_folder, is_packed_in_place, rotated},
};

/// How often a folder is listed until it stays the same: what is renamed meanwhile may be left out of a list.
const LISTS: usize = 8;
/// How much of the beginning and of the end of a copy is compared.
const COMPARED: u64 = 4096;

/// What was found in a folder.
#[derive(Default)]
pub(super) struct Gathered {
    /// The oldest first, and where to continue in each.
    pub(super) files: Vec<Found>,
    /// Those that need not be read.
    pub(super) known: Known,
    /// How much was read of one that was followed and is gone.
    pub(super) lost: Option<u64>,
    /// Those that were rotated since then, and compressed.
    pub(super) packed: Vec<PathBuf>,
    /// One that cannot be read.
    pub(super) unread: Option<(PathBuf, io::Error)>,
    /// Whether all of them are to be read, or in which order, cannot be told for certain.
    pub(super) is_unsure: bool,
}

/// A rotated file that was not opened.
struct Listed {
    identity: FileId,
    mark: Mark,
    path: PathBuf,
    rotated: Option<Rotated>,
    /// It has the name of the file at the path, compressed in its place.
    in_place: bool,
}

impl Listed {
    fn is_plain(&self) -> bool {
        self.rotated.as_ref().is_some_and(|rotated| !rotated.is_packed)
    }
}

/// A file that is open, and its name.
struct Seen {
    found: Found,
    rotated: Option<Rotated>,
    /// It is at the path that is followed.
    is_here: bool,
    is_known: bool,
    fate: Fate,
}

/// What becomes of a file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It is a copy of something that was truncated after it was read so far.
    Past(usize),
    /// It is the file that was followed, or continues it.
    Followed(usize),
    Unread,
    /// It is no part of the feed, or was read.
    Left,
}

impl Seen {
    fn new(found: Found, rotated: Option<Rotated>, is_here: bool) -> Self {
        Self { found, rotated, is_here, is_known: false, fate: Fate::Left }
    }

    fn contains(&self, place: &Checkpoint) -> bool {
        self.found.opened.what == What::File && is_in(place, &self.found.opened.file)
    }

    fn len(&self) -> u64 {
        self.found.opened.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// The files in the folder, those with the names of rotated files first.
fn list(path: &Path) -> Vec<Listed> {
    let listed = in_folder(path).filter_map(|entry| {
        // Of the name, not of what a link points to: that is found as well.
        let metadata = entry.metadata().ok().filter(Metadata::is_file)?;
        let (in_place, rotated) = (is_packed_in_place(path, &entry.path()), rotated(path, &entry.path()));
        Some(Listed { identity: identity(&metadata), mark: Mark::of(&metadata), path: entry.path(), rotated, in_place })
    });
    let mut listed: Vec<_> = listed.collect();
    listed.sort_by(|one, other| (one.rotated.is_none(), &one.path).cmp(&(other.rotated.is_none(), &other.path)));
    listed
}

/// Lists the folder until it stays the same, and opens the files that are `wanted`, and not among `seen`.
fn look(
    path: &Path,
    seen: &mut Vec<Seen>,
    wanted: impl Fn(&Listed, &[Listed]) -> bool,
) -> (Vec<Listed>, Option<(PathBuf, io::Error)>) {
    let mut before = None;
    let mut last = (Vec::new(), None);
    for _ in 0..LISTS {
        let (listed, mut unread) = (list(path), None);
        // Of two names, one that tells more comes last.
        for one in listed.iter().rev() {
            if let Some(seen) = seen.iter_mut().find(|seen| seen.found.identity == one.identity) {
                if !seen.is_here || !is_at(path, one.identity) {
                    (seen.rotated, seen.is_here) = (one.rotated.clone(), false);
                }
                continue;
            }
            if !wanted(one, &listed) {
                continue;
            }
            match open(&one.path, &[What::File]).and_then(|opened| Ok((Claim::of(&opened.metadata)?, opened))) {
                Ok((held, opened)) if identity(&opened.metadata) == one.identity => {
                    let found = Found::new(opened, Checkpoint::default(), Arc::new(held));
                    seen.push(Seen::new(found, one.rotated.clone(), false));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => unread = Some((one.path.clone(), error)),
                _ => {}
            }
        }
        let now: BTreeSet<_> = listed.iter().map(|one| (one.identity, one.path.clone())).collect();
        last = (listed, unread);
        if before.as_ref() == Some(&now) {
            break;
        }
        before = Some(now);
    }
    last
}

fn is_at(path: &Path, file: FileId) -> bool {
    std::fs::metadata(path).is_ok_and(|there| identity(&there) == file)
}

/// Those that are there already, and so are no part of a feed that begins.
pub(super) fn known(path: &Path, here: Option<FileId>) -> Known {
    let mut listed = list(path);
    listed.retain(|one| (one.rotated.is_some() || one.in_place) && Some(one.identity) != here);
    Order::Falling.sort(&mut listed, |one| one.rotated.as_ref());
    let mut known = Known::default();
    listed.iter().for_each(|one| known.add(one.mark));
    known
}

/// Those that have come while the file at `path` has been the same: they are copies of it, or have nothing to do with it.
pub(super) fn copies(path: &Path, current: FileId, held: &[FileId], known: &Known) -> Vec<Mark> {
    // What a link leads to may be made before the link.
    let is_same = || std::fs::symlink_metadata(path).is_ok_and(|there| identity(&there) == current);
    if !is_same() {
        return Vec::new();
    }
    let listed = list(path);
    let is_known = |one: &Listed| known.contains(one.mark) || is_before(one.rotated.as_ref(), &listed, known);
    let mut new: Vec<_> =
        listed.iter().filter(|one| one.rotated.is_some() && !held.contains(&one.identity) && !is_known(one)).collect();
    Order::Falling.sort(&mut new, |one| one.rotated.as_ref());
    if is_same() { new.into_iter().map(|one| one.mark).collect() } else { Vec::new() }
}

/// The files that were at `path` for a while since the one that was there `before`, the oldest first: those that are older
/// than the one that was `seen` there last, and those that are newer.
pub(super) fn between(
    path: &Path,
    (before, seen): (Option<FileId>, Option<FileId>),
    held: &[FileId],
    known: &Known,
) -> (Vec<Found>, Vec<Found>) {
    let mut missed = Vec::new();
    let is_wanted = |one: &Listed, listed: &[Listed]| {
        let is_known = || known.contains(one.mark) || is_before(one.rotated.as_ref(), listed, known);
        one.is_plain() && !held.contains(&one.identity) && !is_known()
    };
    let (listed, _) = look(path, &mut missed, is_wanted);
    missed.retain(|missed| !is_at(path, missed.found.identity));
    let name = |file| listed.iter().find(|one| Some(one.identity) == file).and_then(|one| one.rotated.as_ref());
    let (order, _) = sort(&mut missed, name(before), &listed, known);
    // It may have been renamed since.
    let is_older = |missed: &Seen| {
        name(seen).zip(missed.rotated.as_ref()).is_none_or(|(seen, missed)| order.is_newer(seen, missed))
    };
    let (older, newer): (Vec<_>, Vec<_>) = missed.into_iter().partition(is_older);
    let found = |one: Seen| {
        let is_newer = name(before).zip(one.rotated.as_ref()).is_some_and(|(before, one)| order.is_newer(one, before));
        Found { is_doubtful: !is_newer, ..one.found }
    };
    let found = |files: Vec<Seen>| files.into_iter().map(found).collect();
    (found(older), found(newer))
}

/// Sorts files that have not been read, and says in which order, and whether that is certain. The older ones are the one that was
/// followed or, if that has no number, all that are known.
fn sort(unread: &mut [Seen], followed: Option<&Rotated>, listed: &[Listed], known: &Known) -> (Order, bool) {
    let older = listed.iter().filter(|one| followed.is_none() && known.contains(one.mark));
    let older = older.filter_map(|one| one.rotated.as_ref()).chain(followed);
    let order = Order::of(older, unread.iter().filter_map(|seen| seen.rotated.as_ref()));
    // Where names do not tell.
    unread.sort_by_key(|seen| seen.found.opened.metadata.modified().ok());
    order.sort(unread, |seen| seen.rotated.as_ref());
    (order, order != Order::Unknown || unread.len() < 2)
}

/// What an earlier process has not read: in the files that it followed, and in those that were rotated since then. The
/// one that is `here`, at the path, has been opened before, so that it cannot be missed when it is renamed. Not to be
/// called on a worker.
pub(super) fn gather(path: &Path, here: Option<Found>, places: &Places) -> Gathered {
    let (mut places, known) = (places.clone(), places.known.clone());
    let mut seen: Vec<_> = here.into_iter().map(|found| Seen::new(found, None, true)).collect();
    let (listed, unread) = look(path, &mut seen, |one, listed| {
        let is_new = || !known.contains(one.mark) && !is_before(one.rotated.as_ref(), listed, &known);
        places.index(one.identity).is_some() || one.is_plain() && is_new()
    });
    let is_copied = recognize(&mut places, &mut seen, &listed, &known);
    let lost = follow(path, &places, &mut seen, &listed);

    // The newest one that was followed: all that has not been read comes after it.
    let followed = seen.iter().filter(|seen| matches!(seen.fate, Fate::Followed(_)));
    let newest = followed.max_by(|one, other| one.fate.cmp(&other.fate));
    let (is_at_path, newest) = (newest.is_some_and(|one| one.is_here), newest.and_then(|one| one.rotated.clone()));
    let older = listed.iter().filter(|one| known.contains(one.mark)).filter_map(|one| one.rotated.as_ref());
    let order = match Order::of(older, newest.iter()) {
        Order::Rising => Order::Rising,
        Order::Falling | Order::Unknown => Order::Falling,
    };
    let is_newer =
        |rotated: &Rotated| !is_at_path && newest.as_ref().is_none_or(|newest| order.is_newer(rotated, newest));

    let past: Vec<_> = places.past().filter(|place| place.at > 0).collect();
    let mut is_unsure = false;
    for at in 0..seen.len() {
        let one = &mut seen[at];
        if one.fate != Fate::Left || one.is_known {
            continue;
        }
        let is_newer = one.rotated.as_ref().is_some_and(is_newer);
        if one.is_here {
            one.fate = Fate::Unread;
        } else if one.rotated.is_none() {
            continue;
        } else if let Some(index) = past.iter().rposition(|place| one.contains(place)) {
            if one.len() > past[index].at {
                (one.fate, one.found.place) = (Fate::Past(index), past[index].clone());
            }
            continue;
        } else if is_newer {
            // It may have the same lines, but is no copy: it would be older.
            one.fate = Fate::Unread;
        } else if is_copied || is_copy(&seen, at) {
            continue;
        } else {
            // It should be known.
            is_unsure |= seen[at].len() > 0;
            seen[at].fate = Fate::Unread;
        }
        // Whether one that was followed holds something else now, is seen when it is read.
        let place = places.find(seen[at].found.identity);
        seen[at].found.place = place.unwrap_or_default();
    }

    let mut gathered = Gathered { known, lost, unread, is_unsure, ..Gathered::default() };
    for one in listed.iter().filter(|one| one.rotated.as_ref().is_some_and(|rotated| rotated.is_packed)) {
        if !gathered.known.contains(one.mark) && one.rotated.as_ref().is_some_and(is_newer) {
            gathered.packed.push(one.path.clone());
        }
    }
    if gathered.lost.is_some() {
        let in_place = listed.iter().filter(|one| one.in_place && !gathered.known.contains(one.mark));
        let in_place: Vec<_> = in_place.map(|one| one.path.clone()).collect();
        gathered.packed.extend(in_place);
    }
    let (mut here, others) = seen.into_iter().partition::<Vec<_>, _>(|seen| seen.is_here);
    let (mut unread, mut others) = others.into_iter().partition::<Vec<_>, _>(|seen| seen.fate == Fate::Unread);
    gathered.is_unsure |= !sort(&mut unread, newest.as_ref(), &listed, &gathered.known).1;
    others.sort_by(|one, other| one.fate.cmp(&other.fate));
    gathered.known.retain(|mark| listed.iter().any(|one| one.mark == mark));
    let packed =
        listed.iter().filter(|one| (one.rotated.is_some() || one.in_place) && !one.is_plain()).map(|one| one.mark);
    let left = others.iter().filter(|seen| seen.fate == Fate::Left && seen.rotated.is_some());
    let left = left.map(|seen| Mark::of(&seen.found.opened.metadata));
    packed.chain(left).for_each(|mark| gathered.known.add(mark));
    others.retain(|seen| seen.fate != Fate::Left);
    gathered.files = others.into_iter().chain(unread).chain(here.drain(..)).map(|seen| seen.found).collect();
    for found in gathered.files.iter_mut().filter(|found| found.opened.what == What::File) {
        // Where it cannot be sought, that is seen when it is read.
        let _ = found.opened.file.seek(SeekFrom::Start(found.place.at));
    }
    gathered
}

/// A file system may have another device after a restart, or number its files in another way, and a copy of it does. If
/// none of the files is there, those are taken in which what was published is where it was. Whether it is a copy.
fn recognize(places: &mut Places, seen: &mut [Seen], listed: &[Listed], known: &Known) -> bool {
    let is_there = |seen: &mut Seen| {
        let at = places.index(seen.found.identity);
        at.is_some_and(|at| seen.is_here || places.at(at).is_some_and(|place| seen.contains(&place)))
    };
    if seen.iter_mut().any(is_there) {
        return false;
    }
    let mut left: Vec<_> =
        (0..places.len()).filter_map(|at| Some((at, places.at(at).filter(|place| place.at > 0)?))).collect();
    let all = left.len();
    // The newest one is at the path, which comes first.
    for seen in seen.iter_mut().filter(|seen| seen.is_here || seen.rotated.is_some()) {
        if let Some(of) = left.iter().rposition(|(_, place)| seen.contains(place)) {
            places.recognize(left.remove(of).0, seen.found.identity);
        }
    }
    left.len() < all && !known.is_empty() && !listed.iter().any(|one| known.contains(one.mark))
}

/// Finds the files that were followed, and what continues them. How much was read of one that is gone, the newest.
fn follow(path: &Path, places: &Places, seen: &mut Vec<Seen>, listed: &[Listed]) -> Option<u64> {
    let mut owned = BTreeSet::new();
    for seen in seen.iter_mut() {
        let Some(at) = places.index(seen.found.identity).filter(|at| !owned.contains(at)) else { continue };
        if let Some(place) = places.at(at).filter(|place| seen.contains(place)) {
            (seen.fate, seen.found.place) = (Fate::Followed(at), place);
            owned.insert(at);
        }
    }
    let mut lost = None;
    for at in (0..places.len()).rev().filter(|at| !owned.contains(at)) {
        let is_it = |identity| places.index(identity) == Some(at);
        let is_there =
            seen.iter().any(|seen| is_it(seen.found.identity)) || listed.iter().any(|one| is_it(one.identity));
        let place = places.at(at).filter(|place| place.at > 0);
        let read = place.as_ref().map_or(0, |place| place.at);
        let mut is_continued = place.as_ref().is_some_and(|place| continued(seen, at, place));
        if !is_continued
            && is_there
            && let Some(place) = place
        {
            // It was emptied. A copy may have been made of it that was known before that was.
            let opened: BTreeSet<_> = seen.iter().map(|seen| seen.found.identity).collect();
            look(path, seen, |one, _| one.is_plain() && places.known.contains(one.mark));
            let more = seen.iter_mut().filter(|seen| !opened.contains(&seen.found.identity));
            more.for_each(|seen| seen.is_known = true);
            is_continued = continued(seen, at, &place);
        }
        if !is_continued && !is_there {
            lost.get_or_insert(read);
        }
    }
    lost
}

/// Finds a copy of a file that was followed, the longest one.
fn continued(seen: &mut [Seen], at: usize, place: &Checkpoint) -> bool {
    let mut copies: Vec<_> = seen
        .iter_mut()
        // With so little in it, a new file may begin like it.
        .filter(|seen| seen.fate == Fate::Left && (seen.rotated.is_some() || seen.is_here && place.at >= LAST as u64))
        .filter_map(|seen| seen.contains(place).then_some(seen))
        .collect();
    copies.sort_by_key(|seen| seen.len());
    let longest = copies.pop();
    copies.into_iter().for_each(|seen| seen.is_known = true);
    let is_one = longest.is_some();
    if let Some(seen) = longest {
        (seen.fate, seen.found.place) = (Fate::Followed(at), place.clone());
    }
    is_one
}

/// Whether a file is older than all that are known, when these are only the latest.
fn is_before(rotated: Option<&Rotated>, listed: &[Listed], known: &Known) -> bool {
    let Some(rotated) = rotated.filter(|_| known.is_full()) else { return false };
    let mut others = listed.iter().filter(|one| known.contains(one.mark)).filter_map(|one| one.rotated.as_ref());
    let is_older = |other: &Rotated| Order::Falling.is_newer(other, rotated);
    others.next().is_some_and(is_older) && others.all(is_older)
}

/// Whether a file is the beginning of one that is followed, and there.
fn is_copy(seen: &[Seen], at: usize) -> bool {
    let (one, len) = (&seen[at].found.opened.file, seen[at].len());
    let mut others = seen.iter().filter(|other| matches!(other.fate, Fate::Followed(_))).map(|other| &other.found);
    others.any(|other| other.place.at > 0 && is_in(&other.place, one) || begins_as(one, len, &other.opened.file))
}

/// Whether a file of that length is the beginning of another one, by its first and its last bytes.
fn begins_as(one: &File, len: u64, other: &File) -> bool {
    let part = |mut file: &File, at: u64| {
        let mut part = Vec::new();
        let size = COMPARED.min(len - at);
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.take(size).read_to_end(&mut part));
        read.is_ok_and(|read| read as u64 == size).then_some(part)
    };
    let is_same = |at| part(one, at).is_some_and(|one| Some(one) == part(other, at));
    len > 0 && is_same(0) && is_same(len.saturating_sub(COMPARED))
}

/// What a file is to those that are read.
#[cfg(unix)]
pub(super) enum Copied {
    No,
    /// All that it has is in one of them.
    Whole,
    /// It has all of one that was truncated since it was read so far.
    From(Box<super::open::OpenedFile>, Checkpoint),
}

/// What a file is to `others`, which have been read so far, and to what was truncated after it was read so far in the
/// `past`. Not to be called on a worker.
#[cfg(unix)]
pub(super) fn copied(
    file: &File,
    others: &[(Arc<File>, Checkpoint)],
    past: impl Iterator<Item = Checkpoint>,
) -> io::Result<Copied> {
    let (metadata, least) = (file.metadata()?, LAST as u64);
    let (mut emptied, len): (Vec<_>, _) = (past.collect(), metadata.len());
    for (other, place) in others {
        match is_in(place, other) {
            // With so little in them, two files may begin alike.
            true if place.at >= least && is_in(place, file) => return Ok(Copied::Whole),
            true if len >= least && begins_as(file, len, other) => return Ok(Copied::Whole),
            true => {}
            false => emptied.push(place.clone()),
        }
    }
    let from = emptied.into_iter().filter(|place| place.at > 0 && is_in(place, file)).max_by_key(|place| place.at);
    Ok(match from {
        Some(from) => {
            let opened = super::open::OpenedFile { file: file.try_clone()?, metadata, what: What::File };
            Copied::From(Box::new(opened), from)
        }
        None => Copied::No,
    })
}
