//! How the SVG looks: light, and dark where the reader's system is dark. Fonts are the system's own.

use std::fmt::Write as _;

/// Colors of networks: stroke, light fill, dark fill, dark stroke.
const HUES: [(&str, &str, &str, &str); 8] = [
    ("#2563eb", "#eff6ff", "#10203f", "#60a5fa"),
    ("#0d9488", "#effcf9", "#0c2b2b", "#2dd4bf"),
    ("#9333ea", "#faf5ff", "#271541", "#c084fc"),
    ("#ca8a04", "#fefce8", "#2c240c", "#facc15"),
    ("#db2777", "#fdf2f8", "#3a1228", "#f472b6"),
    ("#16a34a", "#f0fdf4", "#0d2a18", "#4ade80"),
    ("#0284c7", "#f0f9ff", "#0b2638", "#38bdf8"),
    ("#dc2626", "#fef2f2", "#381414", "#f87171"),
];

const LIGHT: &str = "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px;fill:#0f172a}
.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:11px}
.title{font-size:16px;font-weight:600}.name{font-size:13px;font-weight:600}.head{font-size:14px;font-weight:700}
.dim{fill:#64748b}.small{font-size:11px}.also{font-size:11px;font-style:italic;fill:#64748b}
.page{fill:#ffffff}.host{fill:#f8fafc;stroke:#cbd5e1;stroke-width:1.5}.card{fill:#ffffff;stroke:#cbd5e1}
.second{stroke-dasharray:4 3}.chip{fill:#e2e8f0;stroke:#94a3b8}.down{stroke-dasharray:4 3}
.world{fill:#0f172a}.world-name{fill:#ffffff;font-weight:600}
.wire{fill:none;stroke:#94a3b8;stroke-width:2}.end{fill:#94a3b8}
.tie{fill:none;stroke:#64748b;stroke-width:1.5;stroke-dasharray:2 4;stroke-linecap:round}
.port{fill:#fff7ed;stroke:#fdba74}.port-text{fill:#9a3412}
.badge{fill:#ffffff;fill-opacity:.75}
";

const DARK: &str = "text{fill:#e2e8f0}.dim,.also{fill:#94a3b8}
.page{fill:#0b1120}.host{fill:#111827;stroke:#334155}.card{fill:#1e293b;stroke:#475569}
.chip{fill:#1f2937;stroke:#64748b}.world{fill:#e2e8f0}.world-name{fill:#0f172a}
.wire{stroke:#64748b}.end{fill:#64748b}.tie{stroke:#94a3b8}
.port{fill:#3b2412;stroke:#c2410c}.port-text{fill:#fdba74}.badge{fill:#0b1120;fill-opacity:.6}
";

/// The class of a network's color.
pub fn hue(network: usize) -> String {
    format!("n{}", network % HUES.len())
}

/// The style sheet.
pub fn sheet() -> String {
    let mut out = String::from(LIGHT);
    for (n, (stroke, fill, _, _)) in HUES.iter().enumerate() {
        let _ = writeln!(out, ".n{n}{{fill:{fill};stroke:{stroke};stroke-width:1.5}}.t{n}{{fill:{stroke}}}");
    }
    out.push_str("@media (prefers-color-scheme:dark){\n");
    out.push_str(DARK);
    for (n, (_, _, fill, stroke)) in HUES.iter().enumerate() {
        let _ = writeln!(out, ".n{n}{{fill:{fill};stroke:{stroke}}}.t{n}{{fill:{stroke}}}");
    }
    out.push_str("}\n");
    out
}

/// The class of text in a network's color.
pub fn ink(network: usize) -> String {
    format!("t{}", network % HUES.len())
}
