//! Large blobs for longer than a disk is quick: each subject in turns of about a gigabyte, told gigabyte by gigabyte.

use crate::report::{Report, Table};
use crate::rows::{Bounds, Kind, Row, Subject, Work};

/// A turn: a little more than 10⁹ bytes, two connections as in the row of single blobs.
const TURN: Row = Row {
    work: Work::PushBlobs,
    title: "push 100 MiB blob, c=2",
    connections: 2,
    acts: 10,
    rounds: usize::MAX,
};

/// Pushes so many gigabytes by each that writes; MB/s of each turn, and what part of the bare disk's it is.
pub fn measure(
    subjects: &mut [Subject],
    bounds: &mut Bounds,
    gigabytes: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut writers: Vec<&mut Subject> =
        subjects.iter_mut().filter(|subject| !matches!(subject.kind, Kind::Files { .. })).collect();
    let mut rates = vec![Vec::new(); writers.len()];
    for gigabyte in 0..gigabytes {
        bounds.round += 1;
        for (writer, rates) in writers.iter_mut().zip(&mut rates) {
            eprintln!("gigabyte {}: {}", gigabyte + 1, writer.name);
            let Some(turn) = writer.round(TURN, bounds)? else { continue };
            rates.push(turn.bytes as f64 / 1e6 / turn.elapsed.as_secs_f64());
        }
    }
    let mut table = Table::new(
        format!("push 100 MiB blobs, c=2, {gigabytes} GB by each, MB/s"),
        &["first", "median", "last", "lowest", "% of disk"],
    );
    let disk: f64 = rates.last().map_or(0.0, |rates| rates.iter().map(|rate| 1.0 / rate).sum());
    for (writer, rates) in writers.iter().zip(&rates) {
        let mut sorted = rates.clone();
        sorted.sort_by(f64::total_cmp);
        // Time over all turns, as turns are of one size.
        let time: f64 = rates.iter().map(|rate| 1.0 / rate).sum();
        table.row(
            &writer.name,
            vec![
                rates.first().copied(),
                sorted.get(sorted.len() / 2).copied(),
                rates.last().copied(),
                sorted.first().copied(),
                Some(disk / time * 100.0),
            ],
        );
    }
    report.table(&table);
    for (writer, rates) in writers.iter().zip(&rates) {
        let told: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        report.note(format!("{}, MB/s of each gigabyte: {}", writer.name, told.join(" ")));
    }
    Ok(())
}
