//! A bar per row: how our figure compares with the other side's, and the goal.

use crate::Result;
use crate::report::{Measured, figure};
use crate::scenarios::Goal;
use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
/// Of the text on the left.
const LEFT: f64 = 520.0;
const LINE: f64 = 24.0;
const TOP: f64 = 46.0;
/// The scale ends at 32 times and at a 32nd.
const MOST_DOUBLINGS: f64 = 5.0;

/// Where a ratio stands.
fn x(ratio: f64) -> f64 {
    let doublings = ratio.log2().clamp(-MOST_DOUBLINGS, MOST_DOUBLINGS);
    let half = (WIDTH - LEFT - 30.0) / 2.0;
    LEFT + half + doublings / MOST_DOUBLINGS * half
}

/// An SVG picture of the rows that have a ratio.
pub(crate) fn svg(title: &str, rows: &[&Measured]) -> Result<String> {
    let rows: Vec<_> = rows.iter().filter_map(|row| Some((row, row.ratio()?))).collect();
    let bottom = TOP + LINE * f64::from(u32::try_from(rows.len())?);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"14\">{}</text>\n",
        bottom + 24.0,
        escaped(title)
    );
    for ratio in [1.0 / 32.0, 0.25, 0.5, 1.0, 2.0, 4.0, 32.0] {
        let (x, colour) = (x(ratio), if ratio == 1.0 { "#444" } else { "#ddd" });
        writeln!(
            svg,
            "<path d=\"M{x:.0} {TOP} V{bottom:.0}\" stroke=\"{colour}\"/>\
             <text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#666\">{}</text>",
            TOP - 8.0,
            figure(ratio)
        )?;
    }
    for (index, (row, ratio)) in (0_u32..).zip(rows) {
        let y = TOP + LINE * f64::from(index);
        let (from, to) = (x(ratio.median).min(x(1.0)), x(ratio.median).max(x(1.0)));
        let colour = match row.reached() {
            Some(true) => "#4a9d5b",
            Some(false) => "#d9822b",
            None => "#8a9ba8",
        };
        writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{from:.1}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\
             <path d=\"M{:.1} {middle:.0} H{:.1}\" stroke=\"black\"/>",
            LEFT - 8.0,
            y + 16.0,
            escaped(row.row.what),
            y + 4.0,
            (to - from).max(1.0),
            LINE - 8.0,
            x(ratio.low),
            x(ratio.high),
            middle = y + LINE / 2.0,
        )?;
        if let Goal::AtLeast(goal) | Goal::AtMost(goal) = row.goal() {
            writeln!(
                svg,
                "<path d=\"M{goal:.1} {:.0} v{LINE:.0}\" stroke=\"#c0392b\" stroke-width=\"2\"/>",
                y,
                goal = x(goal)
            )?;
        }
    }
    writeln!(
        svg,
        "<text x=\"10\" y=\"{:.0}\" fill=\"#666\">Ratio of Hearth to llama-server, median; the thin line spans the rounds, \
         red is the goal, green has reached it.</text>\n</svg>",
        bottom + 16.0
    )?;
    Ok(svg)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
