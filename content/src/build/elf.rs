//! What a binary says about the libraries it needs.

use object::{
    Endianness,
    elf::{DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, PT_LOAD},
    read::{
        ReadCache, ReadRef, StringTable,
        elf::{Dyn, FileHeader, ProgramHeader},
    },
};
use std::{fs::File, path::Path};

/// No real dynamic section is nearly as long.
const MAX_DYNAMIC_BYTES: u64 = 1 << 20;

/// The kind of machine that a binary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Machine {
    pub(super) is_64: bool,
    pub(super) is_little_endian: bool,
    pub(super) code: u16,
}

impl Machine {
    /// What Debian calls the directories of its libraries.
    pub(super) fn multiarch(self) -> Option<&'static str> {
        use object::elf::*;
        Some(match (object::elf::Machine(self.code), self.is_64) {
            (EM_X86_64, true) => "x86_64-linux-gnu",
            (EM_X86_64, false) => "x86_64-linux-gnux32",
            (EM_386, _) => "i386-linux-gnu",
            (EM_AARCH64, _) => "aarch64-linux-gnu",
            (EM_ARM, _) => "arm-linux-gnueabihf",
            (EM_RISCV, true) => "riscv64-linux-gnu",
            (EM_PPC64, _) if self.is_little_endian => "powerpc64le-linux-gnu",
            (EM_S390, true) => "s390x-linux-gnu",
            _ => return None,
        })
    }

    pub(super) fn name(self) -> String {
        match self.multiarch() {
            Some(name) => name.split('-').next().unwrap_or(name).to_owned(),
            None => format!("machine type {}", self.code),
        }
    }
}

/// What is told by a binary or a shared library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elf {
    pub(super) machine: Machine,
    /// The path of the dynamic loader.
    pub(super) interpreter: Option<Vec<u8>>,
    /// The names of libraries.
    pub(super) needed: Vec<Vec<u8>>,
    /// Directories, separated by colons.
    pub(super) rpath: Option<Vec<u8>>,
    /// Directories, separated by colons.
    pub(super) runpath: Option<Vec<u8>>,
}

/// Why a file is not taken for a binary.
#[derive(Debug)]
pub(super) enum ElfError {
    Io(std::io::Error),
    /// It is something else.
    NotElf,
    Malformed(String),
}

/// What is wrong with a file.
struct Problem(String);

impl From<object::Error> for Problem {
    fn from(error: object::Error) -> Problem {
        Problem(error.to_string())
    }
}

/// Reads only what is needed, however large the file is.
pub(super) fn read(path: &Path) -> Result<Elf, ElfError> {
    let mut file = File::open(path).map_err(ElfError::Io)?;
    let mut magic = [0; 6];
    match std::io::Read::read_exact(&mut file, &mut magic) {
        Ok(()) if magic.starts_with(b"\x7fELF") => {}
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(ElfError::Io(error));
        }
        _ => return Err(ElfError::NotElf),
    }
    let data = ReadCache::new(file);
    match magic[4] {
        1 => parse::<object::elf::FileHeader32<Endianness>, _>(&data),
        2 => parse::<object::elf::FileHeader64<Endianness>, _>(&data),
        _ => Err(Problem("its class is unknown".into())),
    }
    .map_err(|Problem(problem)| ElfError::Malformed(problem))
}

fn parse<'data, H, R>(data: R) -> Result<Elf, Problem>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut elf = Elf {
        machine: Machine {
            is_64: header.is_class_64(),
            is_little_endian: header.is_little_endian(),
            code: header.e_machine(endian).0,
        },
        interpreter: None,
        needed: Vec::new(),
        rpath: None,
        runpath: None,
    };
    for segment in segments {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            elf.interpreter = Some(interpreter.to_vec());
        }
    }
    for segment in segments {
        let length: u64 = segment.p_filesz(endian).into();
        if segment.p_type(endian) == object::elf::PT_DYNAMIC && length > MAX_DYNAMIC_BYTES {
            return Err(Problem("its dynamic section is absurdly long".into()));
        }
        let Some(entries) = segment.dynamic(endian, data)? else {
            continue;
        };
        let entries = entries
            .iter()
            .map(|entry| (entry.d_tag(endian), entry.d_val(endian).into()))
            .take_while(|(tag, _)| *tag != DT_NULL);
        dynamic(&mut elf, endian, segments, data, entries)?;
    }
    Ok(elf)
}

fn dynamic<'data, P, R>(
    elf: &mut Elf,
    endian: Endianness,
    segments: &[P],
    data: R,
    entries: impl Iterator<Item = (object::elf::DynamicTag, u64)> + Clone,
) -> Result<(), Problem>
where
    P: ProgramHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let value = |wanted| {
        entries
            .clone()
            .find(|(tag, _)| *tag == wanted)
            .map(|(_, value)| value)
    };
    let (Some(address), Some(length)) = (value(DT_STRTAB), value(DT_STRSZ)) else {
        return Ok(());
    };
    let offset = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .find_map(|segment| {
            let start: u64 = segment.p_vaddr(endian).into();
            let size: u64 = segment.p_filesz(endian).into();
            let inside = address.checked_sub(start).filter(|inside| *inside < size)?;
            inside.checked_add(segment.p_offset(endian).into())
        })
        .ok_or_else(|| Problem("its names are not in the file".into()))?;
    let end = offset
        .checked_add(length)
        .ok_or_else(|| Problem("its names are not in the file".into()))?;
    let strings = StringTable::new(data, offset, end);
    let string = |at: u64| -> Result<Vec<u8>, Problem> {
        u32::try_from(at)
            .ok()
            .and_then(|at| strings.get(at).ok())
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Problem("a name is not in the file".into()))
    };
    for (tag, value) in entries.clone() {
        match tag {
            DT_NEEDED => elf.needed.push(string(value)?),
            DT_RPATH => elf.rpath = Some(string(value)?),
            DT_RUNPATH => elf.runpath = Some(string(value)?),
            _ => {}
        }
    }
    Ok(())
}
