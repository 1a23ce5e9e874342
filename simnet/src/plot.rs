//! Plots as SVG, drawn by hand: lines over time, one panel above another.

use std::fmt::Write;

use crate::cluster::Sample;

/// A line of a panel.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// Lines that share axes.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What is upwards.
    pub title: String,
    /// What is shown.
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 760.0;
const PANEL_HEIGHT: f64 = 170.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const COLOURS: [&str; 6] = [
    "#1f6fb4", "#d1495b", "#3a8f5c", "#8a5fb0", "#b07d2b", "#5a6672",
];

/// Slots, queue and pulls over the time of a run.
pub fn samples(title: &str, samples: &[Sample]) -> String {
    // A thousand points are more than the plot is wide.
    let step = samples.len().div_ceil(1_000).max(1);
    let line = |name: &str, value: fn(&Sample) -> f64| Line {
        name: name.to_owned(),
        points: samples
            .iter()
            .step_by(step)
            .map(|sample| (sample.at.as_secs_f64(), value(sample)))
            .collect(),
    };
    let panels = [
        Panel {
            title: "slots".to_owned(),
            lines: vec![
                line("busy", |sample| sample.slots_busy as f64),
                line("there", |sample| sample.slots as f64),
            ],
        },
        Panel {
            title: "jobs that wait".to_owned(),
            lines: vec![line("waiting", |sample| sample.queued as f64)],
        },
        Panel {
            title: "layers being pulled".to_owned(),
            lines: vec![line("pulls", |sample| sample.pulls as f64)],
        },
    ];
    panels_over(title, "seconds", &panels)
}

/// Panels one above the other, over the same axis.
pub fn panels_over(title: &str, axis: &str, panels: &[Panel]) -> String {
    let points = || {
        panels
            .iter()
            .flat_map(|panel| &panel.lines)
            .flat_map(|line| &line.points)
    };
    let right = points().map(|(x, _)| *x).fold(0.0, f64::max).max(1e-9);
    let height = TOP + panels.len() as f64 * (PANEL_HEIGHT + 40.0) + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    for (number, panel) in panels.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL_HEIGHT + 40.0);
        draw_panel(&mut svg, panel, top, right);
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n</svg>",
        WIDTH - RIGHT,
        height - 6.0,
        escape(axis)
    );
    svg
}

fn draw_panel(svg: &mut String, panel: &Panel, top: f64, right: f64) {
    let highest = panel
        .lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|(_, y)| *y)
        .fold(0.0, f64::max);
    let ceiling = round_up(highest);
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| top + PANEL_HEIGHT - value / ceiling * (PANEL_HEIGHT - 16.0);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" fill=\"#333\">{}</text>",
        top + 2.0,
        escape(&panel.title)
    );
    for quarter in 0..=4 {
        let value = ceiling * f64::from(quarter) / 4.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{1}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#666\">{4}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value),
            y(value) + 4.0,
            short(value)
        );
    }
    let grid = round_up(right) / 5.0;
    let mut at = 0.0;
    while at <= right {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{}</text>",
            x(at),
            top + PANEL_HEIGHT + 16.0,
            short(at)
        );
        at += grid;
    }
    for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        for (index, (at, value)) in line.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", x(*at), y(*value));
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        );
    }
    if panel.lines.len() > 1 {
        let mut at = LEFT + 150.0;
        for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{}\" fill=\"{colour}\">{}</text>",
                top + 2.0,
                escape(&line.name)
            );
            at += 22.0 + 7.0 * line.name.chars().count() as f64;
        }
    }
}

/// The next of 1, 2, 5, 10, 20, 50 and so on.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= value * 0.999_999)
        .unwrap_or(10.0 * power)
}

fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", (value / 1e5).round() / 10.0)
    } else if value >= 1e4 {
        format!("{} k", (value / 1e2).round() / 10.0)
    } else {
        format!("{}", (value * 100.0).round() / 100.0)
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_round() {
        for (value, ceiling) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (1.3, 2.0),
            (49.0, 50.0),
            (5_001.0, 10_000.0),
        ] {
            assert_eq!(round_up(value), ceiling, "{value}");
        }
    }

    #[test]
    fn a_plot_draws_every_line() {
        let line = |name: &str| Line {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (1.0, 2.0)],
        };
        let panel = Panel {
            title: "a < b".to_owned(),
            lines: vec![line("one"), line("two")],
        };
        let svg = panels_over("Title", "seconds", &[panel]);
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
    }
}
