//! The index over slots (`n_probe`): lists of similar keys, of which a step searches a few.
//!
//! An inverted file (Sivic and Zisserman 2003; in FAISS, `IndexIVF`) whose lists are founded while slots are
//! stored. It is a function of a row's keys and their order alone. Slot n, counted from 0 over the visible
//! slots, joins the list whose *pivot* is nearest to its key, by squared Euclidean distance. Of equally near
//! lists it is the oldest. The slot founds a list instead, and its key becomes the pivot,
//!
//! - if the nearest list is *full*, with [`FULL`] sqrt(n) slots: no later slot joins that list;
//! - if fewer than [`FIRST`] + [`REGULAR`] sqrt(n) lists were founded for this reason. Pivots thus sample the
//!   keys evenly;
//! - if the key is an *outlier*, whose distance is more than [`OUTLIER`] times the mean of those before it, and
//!   fewer than sqrt(n) lists were founded for this reason.
//!
//! N slots have at most 4 sqrt(N) + 64 lists of at most 2 sqrt(N) + 1 slots, whatever the keys are. No slot is
//! moved later.
//!
//! A query ranks lists by an estimate of their highest score. The score of the pivot is a lower bound of it.
//! An upper bound is the score of the box around the list's keys, Σ_a max(q_a high_a, q_a low_a). The
//! estimate lies between the two, [`REACH`] of the way up. The best `n_probe` lists are searched, and further
//! ones while they have fewer slots than the step ranks.
//!
//! This is the readable twin. That of the CPU kernel is `cpu/index.rs`.

/// Regular lists that a memory has from the start. What an outlier is shows only later, and what is asked for
/// often comes first. They are few beside the lists of a long memory.
pub(crate) const FIRST: usize = 64;

/// Regular lists, as a multiple of sqrt(n). At 1,000,000 slots, reading the pivots then takes about a third of
/// the time of a step that searches four lists.
pub(crate) const REGULAR: usize = 2;

/// Slots of a full list, as a multiple of sqrt(n). With 1, closed lists scatter clusters; 4 finds little more, and
/// lists can be twice as long. (This and the next: 20,000 keys of 64 elements in 24 clusters, and 30 needles among
/// them. At `n_probe` 8, of the best ten slots 82, 92 and 93 % are found with 1, 2 and 4.)
pub(crate) const FULL: usize = 2;

/// Distance of an outlier from its nearest pivot, as a multiple of the mean. With 1.25, ordinary keys use up the
/// lists for outliers. (In wide clusters, the first list is that of the needle for 66, 100 and 100 % of the queries
/// for one with 1.25, 1.5 and 2. Without lists for outliers it is for 33 %.)
pub(crate) const OUTLIER: f64 = 1.5;

/// The estimate's place between the score of the pivot, 0, and that of the box, 1. Boxes of many keys hide the
/// needle of another list. (Of the best ten slots 74, 92 and 88 % are found with 0, 1/4 and 1; of needles in wide
/// clusters 100, 100 and 0 %.)
pub(crate) const REACH: f64 = 0.25;

/// Which slots found lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Founding {
    /// n, the number of slots so far.
    slots: usize,
    /// Regular lists.
    regular: usize,
    /// Lists that outliers founded.
    outliers: usize,
    /// Sum and number of the finite distances so far.
    distances: (f64, f64),
}

/// What a slot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It joins the nearest list.
    Joins,
    /// It founds a list.
    Founds,
    /// It founds a list because the nearest one is full, and closes that.
    Replaces,
}

impl Founding {
    /// The place of the next slot. `nearest` is its squared distance from the nearest pivot, and the slots of
    /// that list; `None` without lists.
    #[inline]
    pub fn place(&mut self, nearest: Option<(f64, usize)>) -> Place {
        let n = self.slots;
        self.slots += 1;
        let (distance, len) = nearest.unwrap_or((f64::INFINITY, 0));
        let (sum, count) = self.distances;
        // Not a number counts as infinite. A mean of nothing would be NaN, hence the product.
        let finite = distance < f64::INFINITY;
        let far = finite && distance * count > OUTLIER * sum;
        if finite {
            self.distances = (sum + distance, count + 1.0);
        }
        let beyond_first = self.regular.saturating_sub(FIRST);
        if len > 0 && len * len >= FULL * FULL * n {
            Place::Replaces
        } else if self.regular < FIRST || beyond_first * beyond_first < REGULAR * REGULAR * n {
            self.regular += 1;
            Place::Founds
        } else if far && self.outliers * self.outliers < n {
            self.outliers += 1;
            Place::Founds
        } else {
            Place::Joins
        }
    }
}

/// The lists of one row.
#[derive(Debug, Default)]
pub(crate) struct Index {
    founding: Founding,
    lists: Vec<List>,
}

#[derive(Debug)]
struct List {
    pivot: Vec<f64>,
    /// The box around all keys.
    high: Vec<f64>,
    low: Vec<f64>,
    slots: Vec<usize>,
    open: bool,
}

impl Index {
    /// The index of a row's keys, `[M, A]`.
    pub fn of(keys: &[f64], width: usize) -> Self {
        let mut index = Self::default();
        for (slot, key) in keys.chunks(width).enumerate() {
            index.add(slot, key);
        }
        index
    }

    fn add(&mut self, slot: usize, key: &[f64]) {
        let nearest = self.nearest(key);
        let place = self.founding.place(nearest.map(|(list, d)| (d, self.lists[list].slots.len())));
        match (place, nearest) {
            (Place::Joins, Some((list, _))) => return self.lists[list].add(slot, key),
            (Place::Replaces, Some((list, _))) => self.lists[list].open = false,
            _ => {}
        }
        let [pivot, high, low] = std::array::from_fn(|_| key.to_vec());
        self.lists.push(List { pivot, high, low, slots: vec![slot], open: true });
    }

    /// The open list whose pivot is nearest to `key`, and its squared distance. NaN is farther than any
    /// number.
    fn nearest(&self, key: &[f64]) -> Option<(usize, f64)> {
        let mut nearest: Option<(usize, f64)> = None;
        for (at, list) in self.lists.iter().enumerate().filter(|(_, list)| list.open) {
            let distance = list.pivot.iter().zip(key).map(|(p, k)| (k - p) * (k - p)).sum::<f64>();
            let distance = if distance.is_nan() { f64::INFINITY } else { distance };
            if nearest.is_none_or(|(_, least)| distance < least) {
                nearest = Some((at, distance));
            }
        }
        nearest
    }

    /// The slots, in rising order, that a step searches which ranks so many of them.
    pub fn candidates(&self, query: &[f64], n_probe: usize, ranks: usize) -> Vec<usize> {
        let estimates: Vec<f64> = self.lists.iter().map(|list| list.estimate(query)).collect();
        let mut slots = Vec::new();
        let order = ranked(&estimates, (0..estimates.len()).collect());
        for (searched, list) in order.into_iter().enumerate() {
            if searched >= n_probe && slots.len() >= ranks {
                break;
            }
            slots.extend_from_slice(&self.lists[list].slots);
        }
        slots.sort_unstable();
        slots
    }
}

impl List {
    fn add(&mut self, slot: usize, key: &[f64]) {
        self.slots.push(slot);
        for ((high, low), value) in self.high.iter_mut().zip(&mut self.low).zip(key) {
            *high = if value > high { *value } else { *high };
            *low = if value < low { *value } else { *low };
        }
    }

    /// An estimate of the highest score in the list.
    fn estimate(&self, query: &[f64]) -> f64 {
        let corners = query.iter().zip(self.high.iter().zip(&self.low));
        let corner = corners.map(|(q, (high, low))| if *q >= 0.0 { high } else { low });
        let of_element = |((q, pivot), corner): ((&f64, &f64), &f64)| {
            q * ((1.0 - REACH) * pivot + REACH * corner)
        };
        query.iter().zip(&self.pivot).zip(corner).map(of_element).sum()
    }
}

/// Sorts indices of `scores`, given in rising order: the best first, of equal ones the lower index, NaN last.
pub(crate) fn ranked(scores: &[f64], mut indices: Vec<usize>) -> Vec<usize> {
    indices.sort_by(|&a, &b| {
        let (a, b) = (scores[a], scores[b]);
        b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    });
    indices
}

/// The best `n` slots of each row, `[B, n]`, from their keys, `[B, M, A]`, the queries, `[B, A]`, and the scores,
/// `[B, M]`.
pub(crate) fn select(
    keys: &[f64],
    queries: &[f64],
    scores: &[f64],
    batch: usize,
    (n_probe, n): (usize, usize),
) -> Vec<i64> {
    let (slots, width) = (scores.len() / batch, queries.len() / batch);
    let rows = keys.chunks(slots * width).zip(queries.chunks(width)).zip(scores.chunks(slots));
    let best = rows.flat_map(|((keys, query), scores)| {
        let candidates = Index::of(keys, width).candidates(query, n_probe, n);
        ranked(scores, candidates).into_iter().take(n)
    });
    best.map(|slot| slot as i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random numbers, nearly standard normal, from a fixed seed.
    struct Draws(u64);

    impl Draws {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }

        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
        }

        fn vector(&mut self, width: usize, scale: f64) -> Vec<f64> {
            (0..width).map(|_| scale * self.normal()).collect()
        }
    }

    fn lens(index: &Index) -> Vec<usize> {
        index.lists.iter().map(|list| list.slots.len()).collect()
    }

    fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| a + b).collect()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// So many slots found a list each, the next few do not.
    const SINGLE: usize = 83;

    /// Keys of these slots: 0, 1, 2, ..
    fn first() -> Vec<f64> {
        (0..SINGLE).map(|slot| slot as f64).collect()
    }

    #[test]
    fn slots_found_lists_or_join_the_nearest() {
        let mut keys = first();
        // Slot 87 is far from all others.
        keys.extend([10.2, 10.4, 10.3, 82.4, 300.0, 10.6, 299.0]);
        let index = Index::of(&keys, 1);
        let grown: Vec<_> = index
            .lists
            .iter()
            .map(|list| &list.slots[..])
            .filter(|slots| slots.len() > 1)
            .collect();
        assert_eq!(grown, [&[10, 83, 84, 85][..], &[11, 88], &[82, 86], &[87, 89]]);
        assert_eq!(index.lists.len(), SINGLE + 1);
        // The best lists: the outlier's, that of slot 82, and so on downwards.
        assert_eq!(index.candidates(&[1.0], 1, 1), [87, 89]);
        assert_eq!(index.candidates(&[1.0], 1, 3), [82, 86, 87, 89]);
        assert_eq!(index.candidates(&[1.0], 3, 1), [81, 82, 86, 87, 89]);
        assert_eq!(index.candidates(&[-1.0], 2, 1), [0, 1]);
        assert_eq!(index.candidates(&[1.0], 99, 1), (0..keys.len()).collect::<Vec<_>>());
        // A quarter of the way from 10 to 10.4, and to 10.
        assert_eq!(index.lists[10].estimate(&[1.0]), 10.1);
        assert_eq!(index.lists[10].estimate(&[-1.0]), -10.0);
    }

    #[test]
    fn of_equal_pivots_the_oldest_list_grows_until_it_is_full() {
        let index = Index::of(&[2.0; 1000], 1);
        let lens = lens(&index);
        assert!(lens.iter().all(|len| *len <= 2 * 32 + 1), "{lens:?}");
        // The regular ones, and those that replace a full list.
        assert!(lens.len() <= 64 + 64 + 32, "{lens:?}");
        assert_eq!(index.candidates(&[1.0], 1, 1), index.lists[0].slots);
    }

    /// The bounds that the documentation states, for keys that try them.
    #[test]
    fn lists_are_few_and_short() {
        let mut draws = Draws(3);
        let kinds: [fn(usize, f64) -> f64; 5] = [
            |_, x| x,
            |_, _| 1.0,
            // Ever farther: an outlier each time.
            |slot, _| 1.5f64.powi(slot.min(1000) as i32),
            |slot, x| if slot % 3 == 0 { f64::NAN } else { x },
            |slot, x| if slot % 50 == 0 { f64::INFINITY } else { x.round() },
        ];
        for (kind, key) in kinds.into_iter().enumerate() {
            let n = 5000;
            let keys: Vec<f64> = (0..2 * n).map(|at| key(at / 2, draws.normal())).collect();
            let index = Index::of(&keys, 2);
            let (lens, root) = (lens(&index), (n as f64).sqrt());
            assert_eq!(lens.iter().sum::<usize>(), n);
            assert!((lens.len() as f64) <= 4.0 * root + 64.0, "{kind}: {} lists", lens.len());
            assert!(lens.iter().all(|len| (*len as f64) <= 2.0 * root + 1.0), "{kind}: {lens:?}");
            let all = index.candidates(&[1.0, f64::NAN], 1, n);
            assert_eq!(all.len(), n, "{kind}");
        }
    }

    #[test]
    fn not_a_number_does_no_harm() {
        let mut keys = first();
        keys[0] = f64::NAN;
        keys.extend([f64::NAN, 20.1, f64::NAN, 20.2]);
        let index = Index::of(&keys, 1);
        // A key that is no number joins the oldest list, and that list comes last.
        assert_eq!(index.lists[0].slots, [0, 83, 85]);
        assert_eq!(index.lists[20].slots, [20, 84, 86]);
        let last = index.candidates(&[1.0], 1, keys.len() - 3);
        assert!(last.len() == keys.len() - 3 && !last.contains(&83));
        assert_eq!(index.candidates(&[f64::NAN], 2, 1), [0, 1, 83, 85]);
    }

    /// Keys in clusters, one for each token of a sequence, with a few needles among them. A query for a needle
    /// finds it; a query for a cluster finds most of its best.
    #[test]
    fn needles_and_clusters_are_found() {
        let (width, n, needles) = (64, 6000, 20);
        let mut draws = Draws(1);
        for spread in [0.1, 0.5] {
            let centers: Vec<_> = (0..24).map(|_| draws.vector(width, 1.0)).collect();
            let mut keys = Vec::new();
            for slot in 0..n {
                let center = &centers[(24.0 * draws.uniform()) as usize];
                let noise = draws.vector(width, spread);
                let needle = draws.vector(width, 1.0);
                let is_needle = slot % (n / needles) == 7;
                keys.push(if is_needle { needle } else { sum(center, &noise) });
            }
            let index = Index::of(&keys.concat(), width);
            let mut best_of = |aim: &[f64], n_probe| {
                let query = sum(aim, &draws.vector(width, 0.5));
                let scores: Vec<f64> = keys.iter().map(|key| dot(&query, key)).collect();
                let exact = ranked(&scores, (0..n).collect())[..10].to_vec();
                let found = ranked(&scores, index.candidates(&query, n_probe, 10));
                (exact, found[..10].to_vec())
            };
            for slot in (7..n).step_by(n / needles) {
                let (exact, found) = best_of(&keys[slot], 4);
                assert_eq!((exact[0], found[0]), (slot, slot), "spread {spread}");
            }
            let mut common = 0;
            for center in &centers {
                let (exact, found) = best_of(center, 8);
                common += exact.iter().filter(|slot| found.contains(slot)).count();
            }
            assert!(common * 100 >= 95 * 240, "spread {spread}: {common} of 240");
        }
    }
}
