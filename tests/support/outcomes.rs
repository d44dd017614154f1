//! The outcome of each second of a job of every second: it ran, as the job itself wrote down, or a log row says why not.
//!
//! This is no check. It reports the seconds without an outcome and the seconds with two. A row may stand for several seconds;
//! it then says from when to when, and how many they are.

use super::row::Row;
use super::witness::Seen;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Neither run nor row.
    pub without: Vec<i64>,
    /// Two runs, two rows, or a run and a row that says there was none.
    pub doubled: Vec<i64>,
    pub by_second: BTreeMap<i64, Vec<String>>,
}

/// A row for runs that were not made.
#[derive(Clone, Debug)]
struct Refusal {
    from: i64,
    to: i64,
    count: usize,
    text: String,
}

impl Outcomes {
    /// The outcomes of the job's seconds in `span`. Each of its runs writes `word` once, when it begins.
    pub fn of(id: u64, rows: &[Row], seen: &[Seen], word: &str, span: RangeInclusive<i64>) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let is_first = |row: &&Row| row["attempt"].as_u64().unwrap_or(1) <= 1;
        let scheduled = format!("{id}-");
        for second in span.clone() {
            let key = format!("{scheduled}{second}");
            let began = seen.iter().filter(|seen| seen.word == word && seen.attempt == format!("{key}#1")).count();
            let told = rows.iter().filter(is_first).filter(|row| row["run_key"] == *key && is_of_run(row)).count();
            outcomes.by_second.insert(second, vec!["ran".to_string(); began.max(told)]);
        }
        // A row that gives no reason explains nothing.
        let says_why = |row: &&Row| row["output"].as_str().is_some_and(|output| !output.trim().is_empty());
        let refused = rows.iter().filter(is_first).filter(|row| !is_of_run(row)).filter(says_why);
        let mut refusals: Vec<Refusal> = refused.map(refusal).collect();
        // Rows of a single second come first. A row of a span stands for the seconds that are left then.
        refusals.sort_by_key(|refusal| refusal.to - refusal.from);
        for refusal in refusals {
            outcomes.take(&refusal, &span);
        }
        outcomes.without = outcomes.seconds(|told| told.is_empty());
        outcomes.doubled = outcomes.seconds(|told| told.len() > 1);
        outcomes
    }

    /// The outcomes of this second, in words.
    pub fn at(&self, second: i64) -> &[String] {
        self.by_second.get(&second).map_or(&[], Vec::as_slice)
    }

    fn take(&mut self, refusal: &Refusal, span: &RangeInclusive<i64>) {
        let within = |second: &i64| span.contains(second);
        // When a row reaches beyond the span, nobody can say how many of its seconds lie within.
        let is_whole = within(&refusal.from) && within(&refusal.to);
        let seconds: Vec<i64> = (refusal.from..=refusal.to).filter(within).collect();
        let free: Vec<i64> = seconds.iter().copied().filter(|second| self.by_second[second].is_empty()).collect();
        let surplus = if is_whole { refusal.count.saturating_sub(free.len()) } else { 0 };
        let occupied: Vec<i64> = seconds.into_iter().filter(|second| !free.contains(second)).take(surplus).collect();
        for second in free.into_iter().take(refusal.count).chain(occupied) {
            self.by_second.entry(second).or_default().push(refusal.text.clone());
        }
    }

    fn seconds(&self, is_so: impl Fn(&Vec<String>) -> bool) -> Vec<i64> {
        self.by_second.iter().filter(|(_, told)| is_so(told)).map(|(second, _)| *second).collect()
    }
}

/// Whether the row is that of a run that was started, or may have been.
fn is_of_run(row: &Row) -> bool {
    !["cancelled", "missed", "skipped", "shed"].contains(&row.state())
}

/// `... 3 runs ... from 1795460307 to 1795460309 ...`, or the row's own second alone.
fn refusal(row: &Row) -> Refusal {
    let (time, output) = (row["time"].as_i64().expect("a row has a time"), row["output"].as_str().unwrap_or_default());
    let words: Vec<&str> = output.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let second = |at: usize| -> Option<i64> { words.get(at)?.parse().ok().filter(|second| *second > 1_000_000_000) };
    let is_from_to = |at: &usize| words[*at] == "from" && words.get(at + 2) == Some(&"to");
    let place = (0..words.len()).filter(is_from_to).find(|at| second(at + 1).is_some() && second(at + 3).is_some());
    let text = format!("{}: {}", row["state"].as_str().unwrap_or_default(), output.trim());
    let Some(place) = place else { return Refusal { from: time, to: time, count: 1, text } };
    let (from, to) = (second(place + 1).unwrap_or(time), second(place + 3).unwrap_or(time));
    let counts = |at: &usize| ["run", "runs"].contains(&words[*at]) && *at > 0;
    let count = (0..place).rev().filter(counts).find_map(|at| words[at - 1].parse().ok());
    Refusal { from, to, count: count.unwrap_or((to - from + 1) as usize), text }
}
