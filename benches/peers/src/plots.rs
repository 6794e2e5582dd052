//! The plots of docs/performance.md.

use std::path::Path;

use plotters::prelude::*;

use crate::Failure;
use crate::figures::{CPU, Comparison, PER_SECOND, Path as Figure};
use crate::tables::PEERS;
use crate::workloads::{CLOSED, closed_name};

/// Width and height in pixels.
const SIZE: (u32, u32) = (800, 460);
/// How far the axis of connections goes: beyond the last point there is room for the legend.
const RIGHT_END: f64 = 5_000.0;
/// A colour for each service, told apart also by those who do not see red and green differ.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 90, 160),
    RGBColor(120, 180, 230),
    RGBColor(120, 120, 120),
    RGBColor(200, 80, 20),
    RGBColor(0, 150, 120),
    RGBColor(160, 100, 180),
];

/// Draws all plots into `directory`.
pub(crate) fn draw(all: Comparison, directory: &Path) -> Result<(), Failure> {
    let file = |name: &str| directory.join(name);
    lines(all, &file("pairs.svg"), "pairs per second, closed loop", PER_SECOND, 1.0)?;
    lines(all, &file("cpu.svg"), "server CPU per pair in µs, closed loop", CPU, 1e3)
}

fn whole(figure: f64) -> String {
    if figure < 1.0 { format!("{figure:.1}") } else { format!("{figure:.0}") }
}

/// The services' lines over the number of connections, both axes logarithmic. Figures are divided
/// by `unit`.
fn lines(
    all: Comparison,
    file: &Path,
    title: &str,
    path: Figure,
    unit: f64,
) -> Result<(), Failure> {
    let mut series = Vec::new();
    for ((peer, name), colour) in PEERS.into_iter().zip(COLOURS) {
        let point = |connections: usize| {
            let figure = all.median(&closed_name(connections), peer, path)?;
            #[allow(clippy::cast_precision_loss, reason = "there are few connections")]
            Some((connections as f64, figure / unit))
        };
        let points: Vec<(f64, f64)> = CLOSED.into_iter().filter_map(point).collect();
        if !points.is_empty() {
            series.push((name, colour, points));
        }
    }
    let figures = || series.iter().flat_map(|(_, _, points)| points.iter().map(|(_, it)| *it));
    let (least, most) = (figures().fold(f64::MAX, f64::min), figures().fold(0.0, f64::max));
    if series.is_empty() || most <= 0.0 {
        return Ok(());
    }
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d((0.8..RIGHT_END).log_scale(), (least / 1.6..most * 1.6).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("connections")
        .x_label_formatter(&|figure| whole(*figure))
        .y_label_formatter(&|figure| whole(*figure))
        .light_line_style(RGBColor(238, 238, 238))
        .draw()?;
    for (name, colour, points) in series {
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.into_iter().map(|at| Circle::new(at, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    area.present()?;
    Ok(())
}
