//! The few arguments of a bench: `--json FILE` everywhere, the rest as each bench declares it.

use std::path::PathBuf;

/// What was asked for.
pub struct Arguments {
    /// Where the figures go as JSON as well.
    pub json: Option<PathBuf>,
    flags: Vec<String>,
    values: Vec<(String, String)>,
}

impl Arguments {
    /// Reads the process's arguments; `flags` stand alone, `options` take a value. Ends the process on anything else.
    pub fn parse(usage: &str, flags: &[&str], options: &[&str]) -> Self {
        let mut read = Self { json: None, flags: Vec::new(), values: Vec::new() };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--bench" {
                continue; // Cargo says so to every bench.
            }
            if argument == "--help" {
                println!("{usage}");
                std::process::exit(0);
            }
            if flags.contains(&argument.as_str()) {
                read.flags.push(argument);
                continue;
            }
            let known = argument == "--json" || options.contains(&argument.as_str());
            match (known, arguments.next()) {
                (true, Some(value)) if argument == "--json" => read.json = Some(value.into()),
                (true, Some(value)) => read.values.push((argument, value)),
                (true, None) => refuse(&format!("{argument} wants a value"), usage),
                (false, _) => refuse(&format!("{argument} is no argument of this bench"), usage),
            }
        }
        read
    }

    /// Whether a flag was given.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// Every value of an option, in the order given.
    pub fn all<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(move |(name, _)| name == option).map(|(_, value)| value.as_str())
    }

    /// A number, or what stands in for it.
    pub fn number(&self, option: &str, otherwise: usize) -> usize {
        let Some(text) = self.all(option).last() else { return otherwise };
        match text.parse() {
            Ok(number) if number > 0 => number,
            _ => refuse(&format!("{option} wants a number above 0, not {text:?}"), ""),
        }
    }
}

fn refuse(why: &str, usage: &str) -> ! {
    eprintln!("error: {why}\n{usage}");
    std::process::exit(2);
}
