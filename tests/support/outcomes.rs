//! What became of each second of a job of every second: it ran, by the job's own witness, or a log row says why it did not.
//!
//! Not a check by itself: it reports the seconds that nothing explains and those that two things do. A row may stand for
//! several seconds; it then says from when to when, and of how many.

use super::witness::Seen;
use serde_json::Value;
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
struct CallError {
    from: i64,
    to: i64,
    count: usize,
    text: String,
}

impl Outcomes {
    /// Of the job's due seconds in `span`. `word` is what each of its runs writes once, when it begins.
    pub fn of(id: u64, rows: &[Value], seen: &[Seen], word: &str, span: RangeInclusive<i64>) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let is_first = |row: &&Value| row["attempt"].as_u64().unwrap_or(1) <= 1;
        let scheduled = format!("{id}-");
        for second in span.clone() {
            let key = format!("{scheduled}{second}");
            let began = seen.iter().filter(|seen| seen.word == word && seen.attempt == format!("{key}#1")).count();
            let told = rows.iter().filter(is_first).filter(|row| row["run_key"] == *key && is_of_run(row)).count();
            outcomes.by_second.insert(second, vec!["ran".to_string(); began.max(told)]);
        }
        // A row that gives no reason explains nothing.
        let says_why = |row: &&Value| row["output"].as_str().is_some_and(|output| !output.trim().is_empty());
        let refused = rows.iter().filter(is_first).filter(|row| !is_of_run(row)).filter(says_why);
        let mut refusals: Vec<CallError> = refused.map(refusal).collect();
        // Those of one second first: what is left of a span is what its row stands for.
        refusals.sort_by_key(|refusal| refusal.to - refusal.from);
        for refusal in refusals {
            outcomes.take(&refusal, &span);
        }
        outcomes.without = outcomes.seconds(|told| told.is_empty());
        outcomes.doubled = outcomes.seconds(|told| told.len() > 1);
        outcomes
    }

    /// What a second has, in words.
    pub fn at(&self, second: i64) -> &[String] {
        self.by_second.get(&second).map_or(&[], Vec::as_slice)
    }

    fn take(&mut self, refusal: &CallError, span: &RangeInclusive<i64>) {
        let within = |second: &i64| span.contains(second);
        // Of a row that reaches beyond the span nobody can say how many lie within it.
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

/// Whether the row is one of a run that was made (or may have been).
fn is_of_run(row: &Value) -> bool {
    let state = row["state"].as_str().expect("a row has a state");
    !["cancelled", "missed", "skipped", "shed"].contains(&state)
}

/// `... 3 runs ... from 1795460307 to 1795460309 ...`, or the row's own second alone.
fn refusal(row: &Value) -> CallError {
    let (time, output) = (row["time"].as_i64().expect("a row has a time"), row["output"].as_str().unwrap_or_default());
    let words: Vec<&str> = output.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let second = |at: usize| -> Option<i64> { words.get(at)?.parse().ok().filter(|second| *second > 1_000_000_000) };
    let is_from_to = |at: &usize| words[*at] == "from" && words.get(at + 2) == Some(&"to");
    let place = (0..words.len()).filter(is_from_to).find(|at| second(at + 1).is_some() && second(at + 3).is_some());
    let text = format!("{}: {}", row["state"].as_str().unwrap_or_default(), output.trim());
    let Some(place) = place else { return CallError { from: time, to: time, count: 1, text } };
    let (from, to) = (second(place + 1).unwrap_or(time), second(place + 3).unwrap_or(time));
    let counts = |at: &usize| ["run", "runs"].contains(&words[*at]) && *at > 0;
    let count = (0..place).rev().filter(counts).find_map(|at| words[at - 1].parse().ok());
    CallError { from, to, count: count.unwrap_or((to - from + 1) as usize), text }
}
