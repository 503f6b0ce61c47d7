//! The data set: numbers, in parts, and a file for the result of each part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// So many numbers are one part.
const NUMBERS: u64 = 10_000;

/// Parts, and the directory of their results.
pub(crate) struct DataSet {
    parts: u32,
    results: PathBuf,
}

impl DataSet {
    pub(crate) fn open(directory: &Path, parts: u32) -> io::Result<Self> {
        let results = directory.join("results");
        fs::create_dir_all(&results)?;
        Ok(Self { parts, results })
    }

    pub(crate) fn parts(&self) -> std::ops::Range<u32> {
        0..self.parts
    }

    /// Whether a part has its result.
    pub(crate) fn is_done(&self, part: u32) -> bool {
        self.result(part).exists()
    }

    /// Does a part. For the holder of its lock.
    pub(crate) fn process(&self, part: u32) -> io::Result<()> {
        let from = u64::from(part) * NUMBERS;
        let primes = (from..from + NUMBERS).filter(|&number| is_prime(number));
        let result = self.result(part);
        let unfinished = result.with_extension("unfinished");
        fs::write(&unfinished, primes.count().to_string())?;
        fs::rename(unfinished, result)
    }

    /// How many parts are done, by any process.
    pub(crate) fn finished(&self) -> io::Result<u64> {
        let mut finished = 0;
        for entry in fs::read_dir(&self.results)? {
            finished += u64::from(entry?.path().extension().is_none());
        }
        Ok(finished)
    }

    /// The sum of all results.
    pub(crate) fn total(&self) -> anyhow::Result<u64> {
        self.parts()
            .map(|part| Ok(fs::read_to_string(self.result(part))?.parse::<u64>()?))
            .sum()
    }

    fn result(&self, part: u32) -> PathBuf {
        self.results.join(part.to_string())
    }
}

fn is_prime(number: u64) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && !divisors.any(|divisor| number.is_multiple_of(divisor))
}
