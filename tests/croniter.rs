//! Schedules compared with another implementation of crontab, Python's croniter, over thousands of random expressions.
//!
//! They come from a random generator with the fixed start value below; `WING_SEED` tries another one.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use wing_crontab::core::jobs::schedule::Schedule;
use wing_crontab::model::{Second, Zones};

const SEED: &str = "20261123";
const EXPRESSIONS: usize = 6_000;

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    from: i64,
    fires: Vec<i64>,
}

/// The cases with croniter's answers, or why croniter cannot be asked.
fn cases() -> Result<Vec<Case>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    let seed = std::env::var("WING_SEED").unwrap_or(SEED.into());
    let output = Command::new(&python)
        .arg(root.join("tests/croniter_fires.py"))
        .args([seed, EXPRESSIONS.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error} (scripts/python-venv makes it)", python.display()))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(|line| serde_json::from_str(line).expect("the script prints JSON")).collect())
}

#[test]
fn thousands_of_schedules_fire_when_croniter_says() {
    let Some(cases) = support::required("croniter", cases()) else { return };
    assert_eq!(cases.len(), EXPRESSIONS);
    let fires = |case: &Case| -> Result<Vec<i64>, String> {
        let schedule = Schedule::parse(&case.text, &Zones::default()).map_err(|error| error.to_string())?;
        let next = |after: &Second| schedule.next_after(*after);
        Ok(std::iter::successors(next(&Second(case.from)), next).take(8).map(|second| second.0).collect())
    };
    let differing: Vec<String> = cases
        .iter()
        .filter(|case| fires(case).as_ref() != Ok(&case.fires))
        .map(|case| format!("{:?} after {}: {:?}, croniter says {:?}", case.text, case.from, fires(case), case.fires))
        .collect();
    let shown = differing.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(differing.is_empty(), "{} of {EXPRESSIONS} differ:\n{shown}", differing.len());
}
