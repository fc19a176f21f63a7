//! Resident memory of a process that has to stay flat.

use std::time::Instant;

/// By how many KiB resident memory may grow after the first report: what an allocator keeps varies by pages.
const MOST_KIB: usize = 4 << 10;

/// Resident memory of the process, as it was at each report.
#[derive(Debug)]
pub struct Resident {
    of: &'static str,
    start: Instant,
    kib: Vec<usize>,
}

impl Resident {
    /// No report yet; `of` is what is counted.
    pub fn new(of: &'static str) -> Self {
        Self { of, start: Instant::now(), kib: vec![] }
    }

    /// Prints a count, the time since the beginning, resident memory, and `beside`.
    pub fn report(&mut self, count: usize, beside: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        print!("{count:9} {:7}  {seconds:6.1} s  ", self.of);
        match resident_kib() {
            Some(kib) => {
                print!("{kib:7} KiB resident  ");
                self.kib.push(kib);
            }
            None => print!("the system does not tell resident memory  "),
        }
        println!("{beside}");
    }

    /// Prints by how much resident memory grew after the first report, which was `first`.
    ///
    /// # Panics
    ///
    /// If that is more than an allocator's pages.
    pub fn assert_flat(&self, first: &str) {
        let Some((at_first, rest)) = self.kib.split_first() else { return };
        let most = rest.iter().max().unwrap_or(at_first);
        println!("{}: {} KiB more than after {first}", self.of, most.saturating_sub(*at_first));
        assert!(*most <= at_first + MOST_KIB, "resident memory grew from {at_first} to {most} KiB");
    }
}

/// Resident memory of this process, in KiB, where the system tells.
pub fn resident_kib() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
