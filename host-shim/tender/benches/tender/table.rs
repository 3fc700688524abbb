//! What is printed.

/// What is no more than this above an aim is noise.
const NOISE: f64 = 1.02;

/// What a figure should be.
#[derive(Clone, Copy)]
pub enum Aim {
    /// Ours at most so many times the reference's.
    Ratio(f64),
    /// Ours at most this, whatever the reference's.
    AtMost(f64),
}

/// The table's head: two of ours, and the reference.
pub fn head(names: &[&str; 3]) {
    let [hvt, spt, reference] = names;
    println!("{:42} {:>12} {:>12} {:>12}", "", "petrel-", "petrel-", "");
    println!("{:42} {:>12} {:>12} {:>12}", "", "tender", "tender", reference);
    println!("{:42} {hvt:>12} {spt:>12} {:>12}   ratios to {reference}", "", "spt guest");
}

/// One figure of each, of which less is better.
pub fn row(name: &str, unit: &str, figures: [f64; 3], aim: Aim) {
    let [hvt, spt, reference] = figures;
    let cells = figures.map(|figure| {
        let digits = if figure < 100.0 { 2 } else { 0 };
        format!("{figure:.digits$} {unit}")
    });
    let (aim, missed) = match aim {
        Aim::Ratio(most) => (format!("≤ {most}"), hvt.max(spt) > most * reference * NOISE),
        Aim::AtMost(most) => (format!("at most {most}"), hvt.max(spt) > most * NOISE),
    };
    let missed = if missed { "  MISSED" } else { "" };
    let [first, second, third] = cells;
    println!(
        "{name:42} {first:>12} {second:>12} {third:>12}   {:.2}  {:.2}   aim {aim}{missed}",
        hvt / reference,
        spt / reference,
    );
}
