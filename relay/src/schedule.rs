//! Cron expressions as everybody writes them.
//!
//! The parser underneath wants seconds, counts Sunday as 1, refuses 0 and asks for the day of month
//! AND the day of week. This module takes the usual five fields: 0 and 7 are Sunday, names are
//! understood, and when both day fields are restricted either is enough. Times are UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Five fields: minute, hour, day of month, month, day of week. In UTC.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    /// One, or two when either day field is enough.
    any: Vec<cron::Schedule>,
}

/// Why a cron expression was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the schedule {text:?}: {problem}")]
pub struct InvalidSchedule {
    text: String,
    problem: String,
}

impl Schedule {
    /// The first time after `time`; `None` when there is none (30 February).
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.any.iter().filter_map(|s| s.after(&time).next()).min()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| InvalidSchedule {
            text: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Schedule, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        let count = fields.len();
        return Err(format!(
            "it has {count} fields, not 5: minute hour day-of-month month day-of-week"
        ));
    };
    let weekday = weekdays(weekday)?;
    let compile = |day: &str, weekday: &str| {
        let expression = format!("0 {minute} {hour} {day} {month} {weekday}");
        cron::Schedule::from_str(&expression).map_err(|e| e.to_string())
    };
    // A field that begins with a star does not restrict, as in every cron.
    let any = match (day.starts_with(['*', '?']), weekday.as_str()) {
        (false, days) if days != "*" => vec![compile(day, "*")?, compile("*", days)?],
        (_, days) => vec![compile(day, days)?],
    };
    Ok(Schedule {
        text: text.to_owned(),
        any,
    })
}

/// The day-of-week field as a list of names, or `*`.
fn weekdays(field: &str) -> Result<String, String> {
    if matches!(field, "*" | "?") {
        return Ok("*".to_owned());
    }
    let mut days = [false; 7];
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(number(step)?)),
        };
        let (first, last) = weekday_range(range, step.is_some())?;
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(format!("the step in {part:?} is 0"));
        }
        (first..=last)
            .step_by(step)
            .for_each(|day| days[day % 7] = true);
    }
    let names = DAYS.iter().zip(days).filter(|(_, on)| *on);
    let names: Vec<&str> = names.map(|(name, _)| *name).collect();
    Ok(names.join(","))
}

/// First and last day of a part, counted so that the last is never before the first.
fn weekday_range(range: &str, stepped: bool) -> Result<(usize, usize), String> {
    if range == "*" {
        return Ok((0, 6));
    }
    let Some((first, last)) = range.split_once('-') else {
        let day = weekday(range)?;
        // `1/2` means from Monday on, every second day.
        return Ok((day, if stepped { 6.max(day) } else { day }));
    };
    let (first, last) = (weekday(first)?, weekday(last)?);
    // FRI-MON goes around the end of the week.
    Ok((first, if last < first { last + 7 } else { last }))
}

fn weekday(text: &str) -> Result<usize, String> {
    let upper = text.to_ascii_uppercase();
    if let Some(day) = DAYS.iter().position(|name| upper == *name) {
        return Ok(day);
    }
    match number(text)? {
        day @ 0..=7 => Ok(day),
        day => Err(format!(
            "day of week {day} is out of range: 0 to 7 (0 and 7 are Sunday), or SUN to SAT"
        )),
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is neither a number nor a day name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, TimeZone, Timelike, Weekday};

    /// The first `count` times after Saturday, 1 June 2024, 00:00.
    fn times(text: &str, count: usize) -> Vec<DateTime<Utc>> {
        let schedule: Schedule = text.parse().expect("valid");
        let start = Utc.with_ymd_and_hms(2024, 6, 1, 0, 0, 0).unwrap();
        let mut times = vec![start];
        for _ in 0..count {
            let last = times[times.len() - 1];
            times.push(schedule.next_after(last).expect("there is a next"));
        }
        times.split_off(1)
    }

    fn days(text: &str, count: usize) -> Vec<Weekday> {
        times(text, count).iter().map(|t| t.weekday()).collect()
    }

    #[test]
    fn weekday_numbers_are_those_of_cron() {
        use Weekday::{Fri, Mon, Sat, Sun, Thu, Tue, Wed};
        assert_eq!(days("0 3 * * 0", 2), [Sun, Sun]);
        assert_eq!(days("0 3 * * 7", 2), [Sun, Sun]);
        assert_eq!(days("0 3 * * 1", 1), [Mon]);
        assert_eq!(days("0 3 * * mon", 1), [Mon]);
        assert_eq!(days("0 3 * * 1-5", 6), [Mon, Tue, Wed, Thu, Fri, Mon]);
        assert_eq!(days("0 3 * * 5-7", 3), [Sat, Sun, Fri]);
        assert_eq!(days("0 3 * * FRI-MON", 5), [Sat, Sun, Mon, Fri, Sat]);
        assert_eq!(days("0 3 * * */2", 4), [Sat, Sun, Tue, Thu]);
        assert_eq!(days("0 3 * * 1/2", 4), [Mon, Wed, Fri, Mon]);
    }

    #[test]
    fn five_fields_fire_on_the_minute() {
        let fired = times("*/15 * * * *", 5);
        let minutes: Vec<_> = fired.iter().map(|t| (t.minute(), t.second())).collect();
        assert_eq!(minutes, [(15, 0), (30, 0), (45, 0), (0, 0), (15, 0)]);
        assert_eq!(times("17 3 * * *", 1)[0].hour(), 3);
    }

    #[test]
    fn either_day_field_is_enough_when_both_are_restricted() {
        let fired = times("0 0 15 * MON", 3);
        let on: Vec<_> = fired.iter().map(|t| t.day()).collect();
        assert_eq!(on, [3, 10, 15], "two Mondays and the 15th");
    }

    #[test]
    fn a_wrong_expression_says_what_is_wrong() {
        let message = |text: &str| text.parse::<Schedule>().expect_err("invalid").to_string();
        assert!(message("* * * *").contains("4 fields, not 5"));
        assert!(message("0 0 * * 8").contains("day of week 8 is out of range"));
        assert!(message("0 0 * * */0").contains("is 0"));
        assert!(message("0 0 * * x").contains("neither a number nor a day name"));
        assert!(message("61 0 * * *").contains("61"));
    }

    #[test]
    fn a_day_that_never_comes_has_no_next() {
        let schedule: Schedule = "0 0 30 2 *".parse().expect("well-formed");
        assert_eq!(schedule.next_after(Utc::now()), None);
    }
}
